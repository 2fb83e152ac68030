"""OpenVINO on the CPU, one stream."""
import time

import numpy as np
import openvino

from protocol import serve

core = openvino.Core()
model = None


def open_model(args):
    """`dtype`: the precision that the processor computes in; OpenVINO's own choice where it has bf16 is bf16. A model in
    int8 names its products' precision itself; f32 for the rest is the faster choice."""
    global model
    settings = {
        "INFERENCE_PRECISION_HINT": "f32" if args["dtype"] == "int8" else args["dtype"],
        "INFERENCE_NUM_THREADS": args["threads"],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    model = core.compile_model(core.read_model(args["path"]), "CPU", settings).create_infer_request()


def close(_):
    global model
    model = None


def encode(args):
    ids = np.array(args["ids"], dtype=np.int64)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    begin = time.perf_counter()
    model.infer(feeds)
    states = model.get_output_tensor(0).data
    answer = {"ms": (time.perf_counter() - begin) * 1e3, "sample": states[0, 0, :8].tolist()}
    return {**answer, "vectors": states.mean(axis=1).tolist()} if args.get("vectors") else answer


def hello(_):
    return {"version": openvino.__version__.split("-")[0]}


serve({"hello": hello, "open": open_model, "close": close, "encode": encode})
