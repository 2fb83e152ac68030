"""Times every tile of crates/models/cuda/gemm.h on a GPU, beside PyTorch's product, and checks it there.

    python3 tools/cuda/tiles.py KERNELS OUT.json [DTYPE…]

KERNELS is target/cuda/kernels.fatbin. Shapes are those of GPT-2 124M's and BERT-base's layers and of the vocabulary.
Each tile's result is compared with a product in double precision and, bit by bit, with the other tiles' and with its
first row alone. A time is the median of a graph's replays, whose launches go through 12 copies of the weights, as the
layers of a model do. Needs torch and cupy. cuda/linear.rs chooses from what this prints.
"""

import json
import statistics
import sys
import warnings

import cupy
import numpy as np
import torch

warnings.filterwarnings("ignore", category=DeprecationWarning)

# Kernel, rows, columns, threads, elements of a stage, stages: as in cuda/linear.rs.
HALF = [
    ("wgmma128x192", 128, 192, 256, (128 + 192) * 64, 5),
    ("wgmma128x128", 128, 128, 256, (128 + 128) * 64, 6),
    ("gemm128x128", 128, 128, 128, (128 + 128) * 64, 3),
    ("gemm64x64", 64, 64, 128, (64 + 64) * 64, 4),
    ("gemm64x32", 64, 32, 128, (64 + 32) * 128, 3),
    ("gemm32x32", 32, 32, 128, (32 + 32) * 128, 5),
    ("gemm16x32", 16, 32, 128, (16 + 32) * 128, 8),
]
FLOATS = [
    ("gemm128x64", 128, 64, 128, 128 * 20 + 64 * 16, 3),
    ("gemm64x64", 64, 64, 256, 64 * 20 + 64 * 16, 4),
    ("gemm16x32", 16, 32, 128, 16 * 68 + 32 * 64, 6),
]
TYPES = {"f32": (torch.float32, FLOATS, 4), "f16": (torch.float16, HALF, 2), "bf16": (torch.bfloat16, HALF, 2)}
LAYERS = [(768, 2304), (768, 768), (768, 3072), (3072, 768)]
ROWS = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 8192]
COPIES = 12


def median_us(launch):
    """Of one of 12 launches, replayed as a graph."""
    for i in range(COPIES):
        launch(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(COPIES):
            launch(i)
    times = []
    for _ in range(9):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(1e3 * start.elapsed_time(end) / COPIES)
    return statistics.median(times[2:])


def main():
    kernels, out, *asked = sys.argv[1:]
    module = cupy.RawModule(path=kernels)
    report = {"gpu": torch.cuda.get_device_name(), "products": []}
    wrong = 0
    for name in asked or ["bf16", "f32"]:
        dtype, tiles, size = TYPES[name]
        loaded = []
        for kernel, rows, columns, threads, stage, stages in tiles:
            function = module.get_function(f"{kernel}_{name}")
            function.max_dynamic_shared_size_bytes = stage * stages * size
            loaded.append((rows, columns, threads, stage * stages * size, function, kernel))
        shapes = [(k, n, m) for k, n in LAYERS for m in ROWS] + [(768, 50257, m) for m in (1, 64, 512)]
        for k, n, m in shapes:
            if name == "f32" and m > 4096:
                continue
            torch.manual_seed(7)
            weights = [torch.randn(n, k, device="cuda", dtype=dtype) for _ in range(COPIES if n < 50000 else 2)]
            # Half types have (n, k), floats (k, pitch).
            pitch = k if size == 2 else -(-n // 4) * 4
            packed = weights
            if size == 4:
                packed = [torch.zeros(k, pitch, device="cuda") for _ in weights]
                for weight, target in zip(weights, packed):
                    target[:, :n] = weight.T
            x = torch.randn(m, k, device="cuda", dtype=dtype)
            bias = torch.randn(-(-n // 4) * 4, device="cuda")
            y = torch.empty(m, -(-n // 4) * 4, device="cuda")

            def run(tile, rows, i, y=y, x=x):
                bm, bn, threads, shared, function, _ = tile
                stream = cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream)
                arguments = (
                    *(np.uint64(t.data_ptr()) for t in (y, x, packed[i % len(packed)], bias)),
                    *(np.int32(v) for v in (rows, k, n, pitch, 1, -1)),
                    *(np.uint64(0), np.uint64(0), np.int64(0), np.int32(0)),
                )
                with stream:
                    function((-(-rows // bm), -(-n // bn)), (threads,), arguments, shared_mem=shared)

            want = x.double() @ weights[0].double().T + bias[:n].double()
            first, line = None, []
            for tile in loaded:
                y.fill_(float("nan"))
                run(tile, m, 0)
                torch.cuda.synchronize()
                found = y[:, :n].clone()
                error = ((found.double() - want).norm() / want.norm()).item()
                first = found if first is None else first
                y.fill_(float("nan"))
                run(tile, 1, 0)
                torch.cuda.synchronize()
                same = bool(torch.equal(found, first)) and bool(torch.equal(y[0, :n], found[0]))
                good = error < 1e-5 and same
                wrong += not good
                if not good:
                    print(f"  {tile[5]}: error {error:.1e}, same bits {same}")
                if tile[0] > 4 * m and tile[0] > 16:
                    continue
                us = median_us(lambda i, tile=tile: run(tile, m, i))
                tflops = 2 * m * k * n / us / 1e6
                line.append((us, tile[5]))
                report["products"].append(
                    {"dtype": name, "k": k, "n": n, "m": m, "tile": tile[5], "us": us, "error": error,
                     "same_bits": same, "tflop_s": tflops, "gb_s": k * n * size / us / 1e3}
                )
            torch_us = median_us(lambda i: torch.matmul(x, weights[i % len(weights)].T))
            report["products"].append({"dtype": name, "k": k, "n": n, "m": m, "tile": "torch", "us": torch_us})
            line.sort()
            shown = " ".join(f"{tile} {us:.1f}" for us, tile in line[:4])
            best = 2 * m * k * n / line[0][0] / 1e6
            print(f"{name} {m} x {k} x {n}: torch {torch_us:.1f} us; {shown}; {best:.0f} TFLOP/s", flush=True)
            with open(out, "w") as file:
                json.dump(report, file)
    print(f"{wrong} wrong results")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
