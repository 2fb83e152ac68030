"""The PyTorch side of character.ts and generator.ts: pytorch.py FOLDER SEED RECIPE. Prints its run as JSON.

FOLDER has tokenizer/, train.jsonl and validation.jsonl. Where the recipe has `saves`, the model goes into FOLDER/pytorch-<step> after each
of those steps, and the run ends after the last of them, wherever the schedule is then.
"""

import json
import math
import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

folder, seed, recipe = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
torch.set_num_threads(recipe["threads"])
torch.manual_seed(seed)
tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
end = tokenizer.token_to_id("<|endoftext|>")


def blocks(split):
    """Documents, each followed by the end token, cut into blocks."""
    ids = []
    for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
        ids += tokenizer.encode(json.loads(line)["text"], add_special_tokens=False).ids + [end]
    count = len(ids) // recipe["block"]
    return torch.tensor(ids[: count * recipe["block"]]).view(count, recipe["block"])


train, validation = blocks("train"), blocks("validation")
config = GPT2Config(
    vocab_size=tokenizer.get_vocab_size(), n_layer=recipe["layers"], n_head=recipe["heads"], n_embd=recipe["width"],
    n_positions=recipe["block"], resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=end, eos_token_id=end,
)
model = GPT2LMHeadModel(config)
muon = {n: p for n, p in model.named_parameters() if recipe.get("optimizer") == "muon" and p.ndim == 2 and ".h." in n}
rest = [p for n, p in model.named_parameters() if n not in muon]
adam = torch.optim.AdamW(
    [dict(params=[p for p in rest if p.ndim > 1], weight_decay=recipe["weightDecay"]), dict(params=[p for p in rest if p.ndim == 1], weight_decay=0.0)],
    lr=recipe["learningRate"], betas=(recipe["beta1"], recipe["beta2"]), eps=recipe["epsilon"],
)
optimizers = [adam]
if muon:
    options = dict(lr=recipe["learningRate"], weight_decay=recipe["weightDecay"], adjust_lr_fn="match_rms_adamw")
    optimizers.append(torch.optim.Muon(list(muon.values()), **options))


def rate(step):
    if step < recipe["warmup"]:
        return step / recipe["warmup"]
    return 0.5 * (1 + math.cos(math.pi * (step - recipe["warmup"]) / (recipe["steps"] - recipe["warmup"])))


schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]


@torch.no_grad()
def measure():
    model.eval()
    losses = [model(input_ids=batch, labels=batch).loss.item() * len(batch) for batch in validation.split(64)]
    model.train()
    return sum(losses) / len(validation)


saves = recipe.get("saves", [])
last = max(saves, default=recipe["steps"])
curve, seconds, step = [], 0.0, 0
while step < last:
    order = torch.randperm(len(train))
    for rows in order.split(recipe["batch"]):
        if step == last or len(rows) < recipe["batch"]:
            break
        begin = time.perf_counter()
        batch = train[rows]
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe["clip"])
        for optimizer, schedule in zip(optimizers, schedules):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        seconds += time.perf_counter() - begin
        step += 1
        if step in saves:
            model.save_pretrained(folder / f"pytorch-{step}")
        elif not saves and step % 250 == 0:
            curve.append([step, measure()])
print(json.dumps(dict(contender="pytorch", seed=seed, seconds=seconds, validation=curve)))
