"""What a user of PyPI's `openai` sees of the server: `openai.mjs`, in Python."""

import json
import pathlib
import sys
import time
import urllib.request

import httpx2
import openai

given = json.loads(sys.argv[1])
cases = json.loads((pathlib.Path(__file__).parent.parent / "cases.json").read_text("utf-8"))
url, seed = given["url"], cases["seed"]
KEY = "sk-the-key-of-all-tests"
ENDLESS = {"ignore_eos": True}
TOO_LONG = "word " * 700


def control(path, body):
    request = urllib.request.Request(given["control"] + path, json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def start(**options):
    return control("/start", options)["url"]


def drain(base):
    control("/drain", {"url": base})


def running():
    with urllib.request.urlopen(url + "/metrics") as answer:
        lines = answer.read().decode().split("\n")
    return sum(int(line.split(" ")[-1]) for line in lines if line.startswith("candlewick_requests_running{"))


def running_soon():
    """Once they are counted: a first token may be here before the count of its step is."""
    end = time.perf_counter() + 2
    while True:
        count = running()
        if count > 0 or time.perf_counter() > end:
            return count


def idle_after(most=3):
    begun = time.perf_counter()
    while True:
        count = running()
        seconds = time.perf_counter() - begun
        if count == 0 or seconds > most:
            return seconds * 1000


def client_of(base, requests=None, **more):
    """`requests` gets the bodies of all that is sent."""
    hooks = {} if requests is None else {"request": [lambda request: requests.append(json.loads(request.read() or b"null"))]}
    more = {"api_key": KEY, "max_retries": 0, **more}
    return openai.OpenAI(base_url=base + "/v1", http_client=httpx2.Client(event_hooks=hooks), **more)


def failure(work):
    try:
        work()
        return None
    except Exception as error:
        response = getattr(error, "response", None)
        return {
            "classes": [one.__name__ for one in type(error).__mro__],
            "message": str(error),
            **{name: getattr(error, name, None) for name in ("code", "param", "type")},
            "status": getattr(error, "status_code", None),
            "retryAfter": response.headers.get("retry-after") if response is not None else None,
        }


sent = []
client = client_of(url, sent)


def user(content):
    return [{"role": "user", "content": content}]


def counts(usage):
    if hasattr(usage, "prompt_tokens"):
        return {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens, "total": usage.total_tokens}
    return {"prompt": usage.input_tokens, "completion": usage.output_tokens, "total": usage.total_tokens}


def finish_of(status):
    return {"completed": "stop", "incomplete": "length"}.get(status, status)


class Completions:
    streaming = {"stream": True, "stream_options": {"include_usage": True}}

    def ask(self, api, prompt, max_tokens=None, **more):
        return api.completions.create(prompt=prompt, max_tokens=max_tokens, **more)

    def whole(self, answer):
        choice = answer.choices[0]
        return {"text": choice.text, "finish": choice.finish_reason, "usage": counts(answer.usage)}

    def delta(self, chunk):
        return chunk.choices[0].text if chunk.choices else None

    def end(self, chunk):
        return chunk.choices[0].finish_reason if chunk.choices else None

    def usage(self, chunk):
        return chunk.usage


class Chat(Completions):
    def ask(self, api, prompt, max_tokens=None, **more):
        return api.chat.completions.create(messages=user(prompt), max_completion_tokens=max_tokens, **more)

    def whole(self, answer):
        choice = answer.choices[0]
        return {"text": choice.message.content, "finish": choice.finish_reason, "usage": counts(answer.usage)}

    def delta(self, chunk):
        return chunk.choices[0].delta.content if chunk.choices else None


class Responses:
    streaming = {"stream": True}

    def ask(self, api, prompt, max_tokens=None, extra_body=None, **more):
        seeded = {name: more.pop(name) for name in ("seed",) if name in more}
        return api.responses.create(input=prompt, max_output_tokens=max_tokens, extra_body={**(extra_body or {}), **seeded}, **more)

    def whole(self, answer):
        return {"text": answer.output_text, "finish": finish_of(answer.status), "usage": counts(answer.usage)}

    def delta(self, event):
        return event.delta if event.type == "response.output_text.delta" else None

    def end(self, event):
        ended = event.type in ("response.completed", "response.incomplete")
        return finish_of(event.response.status) if ended else None

    def usage(self, event):
        return event.response.usage if self.end(event) else None


routes = {"completions": Completions(), "chat": Chat(), "responses": Responses()}


def each(work):
    return {name: work(name, route) for name, route in routes.items()}


def speaker(name):
    return "default" if name == "completions" else "dialogue"


def question(name):
    return cases["chinese"] if name == "completions" else cases["question"]


def kept(values):
    return [value for value in values if value]


def answered(route, prompt, **options):
    whole = route.whole(route.ask(client, prompt, **options))
    chunks = list(route.ask(client, prompt, **options, **route.streaming))
    return {
        **whole,
        "deltas": kept(map(route.delta, chunks)),
        "streamedFinish": kept(map(route.end, chunks))[-1],
        "streamedUsage": counts(kept(map(route.usage, chunks))[-1]),
    }


def stopped(name):
    seen = answered(routes[name], "W", model="reciter", max_tokens=200, stop=["no such", cases["stop"]])
    return {"text": seen["text"], "finish": seen["finish"], "joined": "".join(seen["deltas"])}


outcome = {
    "models": {"ids": [model.id for model in client.models.list()], "one": client.models.retrieve("minilm").id},
    "answered": each(lambda name, route: answered(route, question(name), model=speaker(name), max_tokens=40, temperature=0.8, seed=seed)),
    "recited": each(lambda name, route: answered(route, "W", model="reciter", max_tokens=200)),
    "length": each(lambda name, route: route.whole(route.ask(client, "W", model="reciter", max_tokens=5))["finish"]),
    "stopped": {name: stopped(name) for name in ("completions", "chat")},
}

# Counts of tokens: asked for, or not.
plain = list(client.chat.completions.create(model="dialogue", messages=user(cases["question"]), seed=seed, stream=True))
outcome["unasked"] = sum(1 for chunk in plain if "usage" in chunk.model_fields_set or not chunk.choices)
with_usage = list(routes["completions"].ask(client, "W", 8, model="reciter", **Completions.streaming))
nulls = all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in with_usage[:-1])
outcome["asked"] = {"nulls": nulls, "lastChoices": len(with_usage[-1].choices)}

# A proxy may cut the bytes anywhere: the client's own decoder, given them in two parts, for each place of a cut.
def decoded(*parts):
    return [event.data for event in openai._streaming.SSEDecoder().iter_bytes(iter(parts))]


raw = client.completions.with_raw_response.create(model="reciter", prompt="We say: ", max_tokens=9, stream=True)
octets = raw.http_response.read()
whole_events = decoded(octets)
wrong = [at for at in range(1, len(octets)) if decoded(octets[:at], octets[at:]) != whole_events]
cut_text = "".join(json.loads(data)["choices"][0]["text"] for data in whole_events if data != "[DONE]")
outcome["cuts"] = {"places": len(octets) - 1, "wrong": wrong, "text": cut_text}


# Log-probabilities.
LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


def dumped(reports):
    return [report.model_dump() for report in reports]


def completion_report(model, prompt):
    request = {"model": model, "prompt": prompt, "seed": seed, "max_tokens": 40, "logprobs": 3}
    whole = client.completions.create(**request).choices[0].logprobs.model_dump()
    parts = [chunk.choices[0].logprobs for chunk in client.completions.create(**request, stream=True)]
    streamed = {name: [one for part in parts if part for one in getattr(part, name)] for name in LISTS}
    return {"whole": {name: whole[name] for name in LISTS}, "streamed": streamed}


def chat_report(model, prompt):
    request = {"model": model, "messages": user(prompt), "seed": seed, "max_completion_tokens": 40, "logprobs": True, "top_logprobs": 3}
    chunks = [chunk.choices[0].logprobs for chunk in client.chat.completions.create(**request, stream=True)]
    whole = client.chat.completions.create(**request).choices[0].logprobs.content
    return {"whole": dumped(whole), "streamed": dumped(one for part in chunks if part for one in part.content)}


def response_report(model, prompt):
    request = {"model": model, "input": prompt, "max_output_tokens": 40, "top_logprobs": 3, "extra_body": {"seed": seed}}
    request["include"] = ["message.output_text.logprobs"]
    events = list(client.responses.create(**request, stream=True))
    whole = client.responses.create(**request).output[0].content[0].logprobs
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    # The client's class of a delta's report has no bytes of its own: as they came.
    return {"whole": dumped(whole), "streamed": dumped(one for event in deltas for one in event.logprobs)}


reports = {"completions": completion_report, "chat": chat_report, "responses": response_report}
outcome["logprobs"] = each(
    lambda name, _: {"written": reports[name](speaker(name), question(name)), "recited": reports[name]("reciter", "W")}
)

# Samples.
three = {"model": "dialogue", "messages": user(cases["question"]), "n": 3, "seed": seed, "temperature": 1.5, "max_completion_tokens": 30}
texts = ["", "", ""]
for chunk in client.chat.completions.create(**three, stream=True):
    for choice in chunk.choices:
        texts[choice.index] += choice.delta.content or ""
outcome["samples"] = {"whole": [one.message.content for one in client.chat.completions.create(**three).choices], "streamed": texts}


# Vectors.
def vectors(texts, **more):
    return [list(one.embedding) for one in client.embeddings.create(model="minilm", input=texts, **more).data]


several = vectors(cases["texts"])
asked = sent[-1].get("encoding_format")
outcome["embeddings"] = {"vectors": several, "asked": asked, "one": vectors(cases["texts"][1])[0]}
outcome["floats"] = vectors(cases["texts"], encoding_format="float")

# Errors.
keyed = start(keys=[{"name": "slow", "key": KEY, "requestsPerMinute": 1}])
ended = start()
drain(ended)
chat = {"model": "dialogue", "messages": user(cases["question"])}
tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
outcome["errors"] = {
    "tooLong": failure(lambda: client.completions.create(model="default", prompt=TOO_LONG)),
    "tooLongStreamed": failure(lambda: client.chat.completions.create(model="dialogue", messages=user(TOO_LONG), stream=True)),
    "tooLongResponse": failure(lambda: client.responses.create(model="dialogue", input=TOO_LONG)),
    "tooLongText": failure(lambda: client.embeddings.create(model="minilm", input=["short", TOO_LONG])),
    "noModel": failure(lambda: client.chat.completions.create(**{**chat, "model": "gpt-5"})),
    "wrongKey": failure(lambda: client_of(keyed, api_key="sk-wrong").models.list()),
    "withinLimit": failure(lambda: client_of(keyed).chat.completions.create(**chat)),
    "limit": failure(lambda: client_of(keyed).chat.completions.create(**chat)),
    "draining": failure(lambda: client_of(ended).chat.completions.create(**chat)),
    "tools": failure(lambda: client.chat.completions.create(**chat, tools=[tool])),
    "format": failure(lambda: client.chat.completions.create(**chat, response_format={"type": "json_object"})),
    "responseTools": failure(lambda: client.responses.create(model="dialogue", input="x", tools=[{"type": "web_search"}])),
    "ids": failure(lambda: client.embeddings.create(model="minilm", input=[[1, 2, 3]])),
}


# A server that ends in the middle of a stream.
def torn(name, route):
    base = start()
    pieces = 0

    def read():
        nonlocal pieces
        for chunk in route.ask(client_of(base), "W", 500, model=speaker(name), extra_body=ENDLESS, **route.streaming):
            if route.delta(chunk):
                pieces += 1
                if pieces == 1:
                    drain(base)

    error = failure(read)
    return {"pieces": pieces, "error": error}


outcome["torn"] = each(torn)

# Who waits no longer, and who leaves in the middle.
endless = {"model": "default", "prompt": "One", "n": 64, "max_tokens": 490, "extra_body": ENDLESS}
begun = time.perf_counter()
timed_out = failure(lambda: client_of(url, timeout=0.3).completions.create(**endless))
outcome["timeout"] = {"error": timed_out, "ms": (time.perf_counter() - begun) * 1000}
idle_after()
with client.completions.create(**endless, stream=True) as stream:
    next(iter(stream))
    before = running_soon()
outcome["left"] = {"closed": {"before": before, "ms": idle_after()}}


# Refused for now: the client waits as long as it is told, and comes again.
def retried():
    # However fast the model is, no more than a batch may be under way.
    base = start(maxWaitMs=1)
    held = client_of(base).completions.create(model="default", prompt="One", n=8, max_tokens=510, extra_body=ENDLESS, stream=True)
    statuses = []

    def answered(response):
        statuses.append(response.status_code)
        if response.status_code == 429:
            held.close()

    http = httpx2.Client(event_hooks={"response": [answered]})
    patient = openai.OpenAI(base_url=base + "/v1", http_client=http, api_key=KEY, max_retries=3)
    begun = time.perf_counter()
    answer = patient.completions.create(model="default", prompt="One", max_tokens=16)
    return {"text": answer.choices[0].text, "requests": len(statuses), "ms": (time.perf_counter() - begun) * 1000}


outcome["retried"] = retried()
print("\n" + json.dumps(outcome))
