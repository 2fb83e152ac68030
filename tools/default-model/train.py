"""Train the default model: GPT-2, 4 layers, 256 wide, 512 positions, 8192 tokens, by the clock.

    nohup setsid nice -n 19 python train.py --until 07:20 > train.log 2>&1 &    # local time of day; resumes by itself

The learning rate follows the share of the time that is gone, not a step count, so it always reaches zero at the end however
fast or busy the machine is:  progress = active / (active + time left until --until). A gap much longer than a step is a pause
(somebody sent SIGSTOP): it does not count as active, and the end stays where it is. The pid is in train.pid.

Output, under the cache: checkpoint.pt (every four minutes, written aside and renamed) and curve.jsonl.
"""

import argparse
import datetime
import json
import math
import os
import time

import numpy as np
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from common import CACHE, CONTEXT, LANGUAGE, MIX, VOCABULARY

WARMUP, DECAY_FROM = 0.02, 0.35  # shares of the whole: linear up, flat, then linear down to zero
MUON_RATE, ADAM_RATE = 0.007, 1e-3
GRADIENTS, MATRICES = 0, 1  # what the processes do together, see Team


def model_config(**kw):
    return GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=256, n_layer=4, n_head=4, bos_token_id=0, eos_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **kw,
    )


# --- data -------------------------------------------------------------------------------------------------------------


class Windows:
    """Training rows of CONTEXT + 1 tokens. Row r draws its source from a generator seeded by (seed, r), and each source is
    walked in a shuffled order of windows whose common offset changes every epoch: no row depends on how training was cut
    into runs, and all 512 positions are trained by every row."""

    def __init__(self, seed):
        self.seed, self.names = seed, list(MIX)
        self.tokens = {s: np.fromfile(CACHE / "tokens" / f"{s}.train.bin", dtype=np.uint16) for s in self.names}
        self.drawn = dict.fromkeys(self.names, 0)
        self.orders = {}

    def row(self, r):
        source = self.names[np.random.default_rng([self.seed, r]).choice(len(self.names), p=list(MIX.values()))]
        tokens, length = self.tokens[source], CONTEXT + 1
        per_epoch = len(tokens) // length - 1
        epoch, i = divmod(self.drawn[source], per_epoch)
        self.drawn[source] += 1
        if self.orders.get(source, (None,))[0] != epoch:
            rng = np.random.default_rng([self.seed, self.names.index(source), epoch])
            self.orders[source] = epoch, rng.integers(length), rng.permutation(per_epoch)
        _, offset, order = self.orders[source]
        at = offset + order[i] * length
        return tokens[at : at + length]

    def batch(self, step, size):
        return torch.from_numpy(np.stack([self.row(step * size + i) for i in range(size)]).astype(np.int64))


def heldout_windows(per_source=3):
    """A small fixed sample for the curve: {language: (rows, bytes)}. The numbers in the model card come from evaluate.py."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(CACHE / "tokenizer.json"))
    rows = {"en": [], "zh": []}
    for source, language in LANGUAGE.items():
        tokens = np.fromfile(CACHE / "tokens" / f"{source}.heldout.bin", dtype=np.uint16)
        count = len(tokens) // (CONTEXT + 1)
        for i in np.linspace(0, count - 1, min(per_source, count)).astype(int):
            rows[language].append(tokens[i * (CONTEXT + 1) : (i + 1) * (CONTEXT + 1)])
    result = {}
    for language, windows in rows.items():
        size = sum(len(tokenizer.decode(w[1:].tolist()).encode()) for w in windows)
        result[language] = torch.from_numpy(np.stack(windows).astype(np.int64)), size
    return result


def cooccurrence_embeddings(windows, width, scale=0.05):
    """wte before any training: the leading singular vectors of positive pointwise mutual information between a token and the
    token after it, the one before it, and those 2 to 4 away, counted over the training mix. It costs some seconds, and rare
    Chinese characters, which a short training sees a few dozen times, start beside the ones they resemble."""
    path = CACHE / "embeddings.pt"
    if path.exists():
        return torch.load(path, weights_only=True)

    def counts(distances):
        total = np.zeros(VOCABULARY * VOCABULARY)
        for source, tokens in windows.tokens.items():
            t = tokens.astype(np.int64)
            for d in distances:
                total += np.bincount(t[:-d] * VOCABULARY + t[d:], minlength=total.size) * (MIX[source] / len(t))
        return torch.from_numpy(total.reshape(VOCABULARY, VOCABULARY)).float()

    def ppmi(c):
        c = c * (3e6 / c.sum())  # as if counted over 3M tokens; +1 at each count holds down chance pairs
        expected = c.sum(1, keepdim=True) * c.sum(0, keepdim=True) ** 0.75
        expected *= c.sum() / expected.sum()
        return (torch.log((c + 0.5) / (expected + 0.5))).clamp_(min=0)

    near, far = counts([1]), counts([2, 3, 4])
    m = torch.cat([ppmi(near), ppmi(near.T), ppmi(far + far.T)], dim=1).bfloat16()
    frequency = torch.log(near.sum(1) * 3e6 / near.sum() + 1)
    q = torch.randn(m.shape[1], width + 16, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        y = torch.linalg.qr((m @ q.bfloat16()).float())[0]
        q = (m.mT @ y.bfloat16()).float()
    u, s, _ = torch.linalg.svd(q.mT @ q)  # y is orthonormal: left vectors are y @ u, and s holds squared singular values
    e = (y @ u)[:, :width] * s[:width] ** 0.25
    e -= e.mean(0)
    e = e / e.norm(dim=1, keepdim=True).clamp(min=1e-6) * math.sqrt(width)
    e[:, -1] = 2 * (frequency - frequency.mean()) / frequency.std()  # one direction for how common a token is
    e = (e * scale).contiguous()
    torch.save(e, path)
    return e


# --- optimiser --------------------------------------------------------------------------------------------------------


def orthogonalise(g):
    """Newton-Schulz towards U V^T of each matrix in the batch g: (n, rows, cols), rows <= cols. (Jordan et al., Muon, 2024)"""
    x = g.bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.float()


class Muon:
    """Muon for the matrices inside the blocks, cut into units of a few matrices of one shape, which any process can take.
    c_attn's (in, 3 out) counts as three matrices. `grad` maps a parameter's name to its summed gradient."""

    def __init__(self, model, grad, momentum):
        self.units, self.momentum = [], momentum
        by_shape = {}
        for name, p in model.named_parameters():
            if ".h." in name and p.dim() == 2:
                parts = 3 if "c_attn" in name else 1
                for view, g in zip(p.data.chunk(parts, dim=1), grad[name].chunk(parts, dim=1)):
                    by_shape.setdefault(tuple(view.shape), []).append((view, g))
        for shape, pairs in by_shape.items():
            size = 8 if shape[0] == shape[1] else 3
            self.units += [pairs[i : i + size] for i in range(0, len(pairs), size)]
        if not momentum:
            momentum += [torch.zeros(len(u), *u[0][0].shape).share_memory_() for u in self.units]

    def step(self, unit, rate, decay=0.05, beta=0.95):
        weights, grads = zip(*self.units[unit])
        g = torch.stack(grads)
        g = g.lerp(self.momentum[unit].lerp_(g, 1 - beta), beta)  # Nesterov
        rows, columns = g.shape[1:]  # Conv1D weights are (in, out)
        update = orthogonalise(g.mT).mT if rows > columns else orthogonalise(g)
        scale = math.sqrt(max(1.0, columns / rows))
        for w, u in zip(weights, update):
            w.mul_(1 - rate * decay).add_(u, alpha=-rate * scale)


# --- two processes, one thread each -----------------------------------------------------------------------------------
# Two OpenMP threads meet in every operation, so on a machine that others use each waits most of the time for the other to be
# scheduled. Two processes take rows from one counter instead, whoever is free, and meet twice a step.


class Team:
    def __init__(self, model, size, batch):
        context = mp.get_context("spawn")
        self.size, self.batch, self.model = size, batch, model.share_memory()
        self.rows = torch.zeros(batch, CONTEXT + 1, dtype=torch.int64).share_memory_()
        self.flat = [torch.zeros(sum(p.numel() for p in model.parameters())).share_memory_() for _ in range(size)]
        self.losses = torch.zeros(size).share_memory_()
        self.momentum = []
        Muon(model, self.grads(0), self.momentum)
        self.start, self.end, self.next = context.Barrier(size), context.Barrier(size), context.Value("i", 0)
        self.job, self.rate = context.Value("i", 0), context.Value("d", 0.0)

    def grads(self, rank):
        views, at = {}, 0
        for name, p in self.model.named_parameters():
            views[name] = self.flat[rank][at : at + p.numel()].view(p.shape)
            at += p.numel()
        return views

    def take(self, count):
        while True:
            with self.next.get_lock():
                i = self.next.value
                self.next.value += 1
            if i >= count:
                return
            yield i

    def join(self, rank):
        """Make this process a member: its gradients accumulate in flat[rank]."""
        torch.set_num_threads(1)
        mine = self.grads(rank)
        for name, p in self.model.named_parameters():
            p.grad = mine[name]
        muon, loss_of = Muon(self.model, self.grads(0), self.momentum), torch.compile(next_token_loss)

        def gradients():
            for i in self.take(self.batch):
                loss = loss_of(self.model, self.rows[i : i + 1]) / self.batch
                loss.backward()
                self.losses[rank] += loss.detach()

        def matrices():
            for unit in self.take(len(muon.units)):
                muon.step(unit, self.rate.value)

        return [gradients, matrices]

    def serve(self, rank):
        jobs = self.join(rank)
        while True:
            self.start.wait(timeout=7200)
            jobs[self.job.value]()
            self.end.wait(timeout=7200)

    def do(self, jobs, job):
        self.job.value, self.next.value = job, 0
        self.start.wait()
        jobs[job]()
        self.end.wait()


def next_token_loss(model, rows, reduction="mean"):
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.transformer(rows[:, :-1]).last_hidden_state
        logits = model.lm_head(hidden.reshape(-1, hidden.shape[-1]))
    return F.cross_entropy(logits.float(), rows[:, 1:].reshape(-1), reduction=reduction)


# --- loop -------------------------------------------------------------------------------------------------------------


def schedule(progress):
    if progress < WARMUP:
        return progress / WARMUP
    return min(1.0, max(0.0, (1 - progress) / (1 - DECAY_FROM)))


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--until", required=True, help="HH:MM, local time: training is over by then")
    args.add_argument("--batch", type=int, default=6)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--processes", type=int, default=2)
    args.add_argument("--max-steps", type=int, default=1 << 30)
    args = args.parse_args()

    now = datetime.datetime.now()
    hour, minute = map(int, args.until.split(":"))
    deadline = time.time() + (now.replace(hour=hour, minute=minute, second=0, microsecond=0) - now).total_seconds()
    (CACHE / "train.pid").write_text(f"{os.getpid()}\n")
    torch.manual_seed(args.seed)

    # gelu_pytorch_tanh is gelu_new in one kernel instead of seven.
    model = GPT2LMHeadModel(model_config(activation_function="gelu_pytorch_tanh", use_cache=False))
    windows, heldout = Windows(args.seed), heldout_windows()
    model.transformer.wte.weight.data.copy_(cooccurrence_embeddings(windows, model.config.n_embd))
    team = Team(model, args.processes, args.batch)
    for rank in range(1, args.processes):
        mp.get_context("spawn").Process(target=team.serve, args=(rank,), daemon=True).start()
    jobs = team.join(0)
    others = [p for name, p in model.named_parameters() if not (".h." in name and p.dim() == 2)]
    adam = torch.optim.AdamW(
        [{"params": [p for p in others if p.dim() > 1], "weight_decay": 0.01}, {"params": [p for p in others if p.dim() == 1], "weight_decay": 0.0}],
        lr=ADAM_RATE, betas=(0.9, 0.95), fused=True,
    )
    average = {k: v.clone() for k, v in model.state_dict().items()}  # an average of recent weights, for early exports
    step, active = 0, 0.0

    checkpoint = CACHE / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        adam.load_state_dict(saved["adam"])
        for mine, theirs in zip(team.momentum, saved["muon"]):
            mine.copy_(theirs)
        average, step, active, windows.drawn = saved["average"], saved["step"], saved["active"], saved["drawn"]

    def save():
        state = {
            "model": model.state_dict(), "average": average, "adam": adam.state_dict(), "step": step, "active": active,
            "muon": team.momentum, "drawn": windows.drawn,
        }
        torch.save(state, checkpoint.with_suffix(".part"))
        os.replace(checkpoint.with_suffix(".part"), checkpoint)

    def log(**row):
        with open(CACHE / "curve.jsonl", "a") as f:
            f.write(json.dumps(row) + "\n")
        print(row, flush=True)

    def bits_per_byte(language):
        rows, size = heldout[language]
        with torch.no_grad():
            nats = sum(next_token_loss(model, part, "sum").item() for part in rows.split(8))
        return round(nats / math.log(2) / size, 4)

    first = step
    last_save = last_eval = last = time.time()
    typical, recent, paused = None, [], 0.0
    while step < args.max_steps:
        now = time.time()
        elapsed, last = now - last, now
        if typical is not None and elapsed > max(20.0, 12 * typical):
            paused += elapsed - typical
            active += typical
        else:
            active += elapsed
            if step > first + 2:  # the first steps compile
                typical = elapsed if typical is None else 0.9 * typical + 0.1 * elapsed
        left = deadline - now
        progress = active / (active + max(left, 0.0)) if left > 0 else 1.0
        if left <= 0:
            break
        rate = schedule(progress)

        team.rows.copy_(windows.batch(step, args.batch))
        team.do(jobs, GRADIENTS)
        for other in team.flat[1:]:
            team.flat[0] += other
        team.flat[0].mul_((1.0 / (team.flat[0].norm() + 1e-6)).clamp(max=1.0))  # clip to norm 1
        team.rate.value = MUON_RATE * rate
        team.do(jobs, MATRICES)
        for group in adam.param_groups:
            group["lr"] = ADAM_RATE * rate
        adam.step()
        recent.append(team.losses.sum().item())
        for buffer in (*team.flat, team.losses):
            buffer.zero_()
        step += 1
        if step % 8 == 0:
            share = min(0.03, 8 / step)  # about the last 270 steps
            for k, v in model.state_dict().items():
                average[k].lerp_(v, share)

        if step % 10 == 0:
            log(step=step, minutes=round(active / 60, 2), progress=round(progress, 4), rate=round(rate, 4),
                loss=round(sum(recent) / len(recent), 4), tokens=step * args.batch * CONTEXT,
                tokens_per_second=round(args.batch * CONTEXT / (typical or 1)), paused=round(paused))
            recent = []
        if now - last_eval > 480:
            log(step=step, minutes=round(active / 60, 2), heldout_en=bits_per_byte("en"), heldout_zh=bits_per_byte("zh"))
            last_eval = time.time()
        if now - last_save > 240:
            save()
            last_save = time.time()
    save()
    log(step=step, minutes=round(active / 60, 2), heldout_en=bits_per_byte("en"), heldout_zh=bits_per_byte("zh"), done=True, drawn=windows.drawn)


if __name__ == "__main__":
    main()
