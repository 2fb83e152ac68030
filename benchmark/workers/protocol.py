"""The other end of benchmark/child.ts: a request is a line of JSON `{op, args}`, its answer a line `{result}` or `{error}`."""
import json
import sys


def serve(operations):
    """Answers requests with what `operations[op](args)` returns; ends with standard input."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["op"] not in operations:
                raise ValueError(f"no {request['op']} here")
            answer = {"result": operations[request["op"]](request.get("args"))}
        except Exception as error:  # noqa: BLE001: whatever it is, it is the answer
            answer = {"error": str(error).split("\n")[0]}
        print(json.dumps(answer), flush=True)
