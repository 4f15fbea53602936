#!/usr/bin/env python3
"""What the steps of `step run DIR --parts` launched on a GPU backend, beside the least they would have to.

    python benches/launches.py LOG --model DIR --base f32

LOG is the stderr of a build whose runtime prints a line for each launch, read and write; docs/results.md has the patch.
Counts the last step. Bytes are those of the buffers that a launch is given, each once.
"""
import argparse, collections, json, os

parser = argparse.ArgumentParser()
parser.add_argument("log")
parser.add_argument("--model", required=True)
parser.add_argument("--base", choices=["f32", "nf4"], default="f32")
parser.add_argument("--rank", type=int, default=8)
parser.add_argument("--rows", type=int, default=4)
parser.add_argument("--len", type=int, default=128)
parser.add_argument("--top", type=int, default=10)
args = parser.parse_args()
config = json.load(open(os.path.join(args.model, "config.json")))

PARTS = ["forward", "backward", "norm", "optimizer"]


def last_step(lines):
    """(part, kind, bytes, name) of everything between the last `forward` and the `end` after it."""
    steps, part = [], None
    for line in lines:
        kind, *rest = line.rstrip("\n").split("\t")
        if kind == "part":
            part = rest[0]
            if part == "forward":
                steps.append([])
        elif kind in ("launch", "read", "write") and part in PARTS:
            steps[-1].append((part, kind, int(rest[0]), rest[1] if kind == "launch" else kind))
            # The loss is read between the two; what is read later is only asked for by `--parts`.
            if kind == "read" and part == "forward":
                part = "backward"
    return steps[-1]


def floor():
    """(part, bytes) of each launch of a step whose kernels do as much as one kernel can: a matrix product with what is
    added to its result, an attention, a norm, a gated unit, a loss, a
    parameter's step; the gradient's norm is one over all."""
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    n, r, layers = args.rows * args.len, args.rank, config["num_hidden_layers"]
    stored = 4 if args.base == "f32" else 0.5 + 1 / 64 + 4 / 64 / 256
    linears = {"q": (hidden, hidden), "k": (hidden, kv), "v": (hidden, kv), "o": (hidden, hidden),
               "gate": (hidden, inner), "up": (hidden, inner), "down": (inner, hidden)}
    found, parameters = [], 0
    put = lambda part, *sizes: found.append((part, 4 * sum(sizes)))
    for layer in range(layers):
        for name, (i, o) in linears.items():
            weight = i * o * stored / 4
            put("forward", n * i, r * i, n * r)
            put("forward", n * i, weight, n * r, o * r, n * o, n * o if name in ("o", "down") else 0)
            put("backward", n * o, o * r, n * r)                          # gradient to down · x
            put("backward", n * o, n * r, o * r)                          # to B
            put("backward", n * r, n * i, r * i)                          # to A
            if layer > 0 or name not in "qkv":
                put("backward", n * o, weight, n * r, r * i, n * i, n * i if name in ("k", "v", "up") else 0)
            for size in (r * i, o * r):
                parameters += size
                put("optimizer", 7 * size)                                # reads four, writes three
        attention = n * (hidden + kv)
        put("forward", 2 * attention)
        put("backward", 2 * attention, 2 * attention - n * hidden)
        for norm in range(2):
            put("forward", 2 * n * hidden, hidden)
            put("backward", 2 * n * hidden, hidden)                       # its result again
            if layer > 0 or norm > 0:
                put("backward", 4 * n * hidden, hidden)
        put("forward", 3 * n * inner)
        put("backward", 3 * n * inner)                                    # its result again
        put("backward", 5 * n * inner)
    put("forward", 2 * n * hidden, n)                                     # embedding
    put("forward", 2 * n * hidden, hidden)
    put("backward", 3 * n * hidden, hidden)
    put("forward", n * hidden, vocab * hidden, n * vocab)                 # the head, whose gradient is taken at once
    put("forward", 2 * n * vocab, n)
    put("forward", n * vocab, vocab * hidden, n * hidden)
    put("norm", parameters)
    return found


def row(name, ours, least):
    mib = [sum(size for _, size in side) / 2**20 for side in (ours, least)]
    ratio = lambda a, b: f"{a / b:.1f}" if b else "–"
    counts = [len(ours), len(least)]
    print(f"| {name} | {counts[0]} | {counts[1]} | {ratio(*counts)} | {mib[0]:.1f} | {mib[1]:.1f} | {ratio(*mib)} |")


step, least = last_step(open(args.log)), floor()
launches = [(part, size, name) for part, kind, size, name in step if kind == "launch"]
print("| part | launches | floor | ratio | MiB | floor | ratio |\n|---|---|---|---|---|---|---|")
for part in PARTS:
    row(part, [(p, size) for p, size, _ in launches if p == part], [f for f in least if f[0] == part])
row("step", [(p, size) for p, size, _ in launches], least)
for kind in ("write", "read"):
    sizes = [size for part, k, size, _ in step if k == kind and (kind == "write" or part in ("forward", "norm"))]
    print(f"\n{kind}s of the host: {len(sizes)}, {sum(sizes) / 2**10:.1f} KiB", end="")
by_name = collections.defaultdict(list)
for _, size, name in launches:
    by_name[name].append(size)
for what, key in (("launches", len), ("bytes", sum)):
    print(f"\n\n| most {what} | launches | MiB |\n|---|---|---|")
    for name, sizes in sorted(by_name.items(), key=lambda item: -key(item[1]))[: args.top]:
        print(f"| `{name}` | {len(sizes)} | {sum(sizes) / 2**20:.1f} |")
