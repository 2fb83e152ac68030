"""faiss: flat indexes, which compare the query with every vector."""
import time

import faiss
import numpy as np

from protocol import serve

index = None
truth = None
queries = None
precision = None


def clustered(count, dimensions, seed):
    """Around a thousand centres, as the vectors of texts do; of length 1."""
    centres = np.random.default_rng(7).standard_normal((1000, dimensions), dtype=np.float32)
    random = np.random.default_rng(seed)
    rows = centres[random.integers(0, 1000, count)] + 0.6 * random.standard_normal((count, dimensions), dtype=np.float32)
    faiss.normalize_L2(rows)
    return rows


def open_index(args):
    global index, truth, queries, precision
    faiss.omp_set_num_threads(args["threads"])
    dimensions, precision = args["dimensions"], args["precision"]
    exact = faiss.IndexFlatIP(dimensions)
    index = {
        "f32": lambda: exact,
        "int8": lambda: faiss.IndexScalarQuantizer(dimensions, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT),
        "binary": lambda: faiss.IndexBinaryFlat(dimensions),
    }[precision]()
    queries = clustered(100, dimensions, 1)
    for part in range(0, args["count"], 50_000):
        rows = clustered(min(50_000, args["count"] - part), dimensions, 2 + part)
        exact.add(rows)
        if precision == "int8":
            if part == 0:
                index.train(rows)
            index.add(rows)
        elif precision == "binary":
            index.add(np.packbits(rows > 0, axis=1))
    truth = exact.search(queries, 10)[1]


def close(_):
    global index, truth, queries
    index = truth = queries = None


def search(args):
    own = np.packbits(queries > 0, axis=1) if precision == "binary" else queries
    times, found = [], []
    for at in range(args["single"]):
        begin = time.perf_counter()
        index.search(own[at : at + 1], args["topK"])
        times.append((time.perf_counter() - begin) * 1e3)
    begin = time.perf_counter()
    index.search(own[: args["many"]], args["topK"])
    rate = args["many"] / (time.perf_counter() - begin)
    found = index.search(own, args["topK"])[1]
    same = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist()))
    return {"times": times, "perSecond": rate, "recall": same / truth.size}


def hello(_):
    return {"version": faiss.__version__}


serve({"hello": hello, "open": open_index, "close": close, "searchVectors": search})
