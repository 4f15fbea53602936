#!/usr/bin/env python3
"""The same steps as `benches/step` with torch, transformers and peft (and bitsandbytes for nf4); prints a JSON object.

    python benches/reference.py DIR --method lora --base f32 --save-adapter ADAPTER --generate 32
"""
import argparse, json, os, time, warnings

warnings.filterwarnings("ignore")
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
parser = argparse.ArgumentParser()
parser.add_argument("dir")
parser.add_argument("--method", default="lora")
parser.add_argument("--base", default="f32", help="f32, bf16, nf4 (computes in f32), nf4-bf16")
parser.add_argument("--save-adapter", help="write the adapter here before training, for the other program to start from")
parser.add_argument("--rank", type=int, default=8)
parser.add_argument("--rows", type=int, default=4)
parser.add_argument("--len", type=int, default=128)
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--warmup", type=int, default=2)
parser.add_argument("--gradient-checkpointing", action="store_true")
parser.add_argument("--generate", type=int, default=0)
parser.add_argument("--threads", type=int, default=os.cpu_count())
args = parser.parse_args()

import torch
import peft
from transformers import AutoModelForCausalLM

torch.set_num_threads(args.threads)
torch.manual_seed(0)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(key))


def quantised(model, compute):
    """The seven linear layers in NF4 with nested scales."""
    import bitsandbytes as bnb

    for path, module in list(model.named_modules()):
        if path.split(".")[-1] in TARGETS:
            layer = bnb.nn.Linear4bit(module.in_features, module.out_features, bias=False, compute_dtype=compute,
                                      compress_statistics=True, quant_type="nf4")
            layer.weight = bnb.nn.Params4bit(module.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4")
            parent, name = path.rsplit(".", 1)
            setattr(model.get_submodule(parent), name, layer.to("cpu"))
    model.is_loaded_in_4bit = True
    model.requires_grad_(False)
    return model


def adapted(model):
    shared = dict(r=args.rank, target_modules=TARGETS, task_type="CAUSAL_LM")
    lora = dict(lora_alpha=16, lora_dropout=0.0)
    configs = {
        "lora": lambda: peft.LoraConfig(**shared, **lora),
        "lora-fa": lambda: peft.LoraConfig(**shared, **lora),
        "dora": lambda: peft.LoraConfig(**shared, **lora, use_dora=True),
        "vera": lambda: peft.VeraConfig(**shared),
        "adalora": lambda: peft.AdaLoraConfig(init_r=args.rank * 3 // 2, target_r=args.rank, lora_alpha=16, target_modules=TARGETS,
                                              task_type="CAUSAL_LM", tinit=0, tfinal=0, deltaT=1, total_step=args.warmup + args.steps + 1),
    }
    return peft.get_peft_model(model, configs[args.method]()) if args.method in configs else model


def optimizer(model):
    if args.method == "lora-fa":
        from peft.optimizers import create_lorafa_optimizer

        return create_lorafa_optimizer(model, r=args.rank, lora_alpha=16, lr=2e-4)
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4, weight_decay=0.0)


def tokens(vocab):
    state = 1
    while True:
        state = (state * 1103515245 + 12345) % 2**31
        yield (state >> 8) % vocab


half = "bf16" in args.base
start = time.perf_counter()
model = AutoModelForCausalLM.from_pretrained(args.dir, dtype=torch.bfloat16 if half else torch.float32)
if args.base.startswith("nf4"):
    model = quantised(model, torch.bfloat16 if half else torch.float32)
load_s = time.perf_counter() - start
model.config.use_cache = False
if args.method == "none":
    model.requires_grad_(False)
model = adapted(model)
if args.save_adapter:
    model.save_pretrained(args.save_adapter)
if args.gradient_checkpointing:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
vocab = model.config.vocab_size
stream = tokens(vocab)
batch = lambda rows, length: torch.tensor([[next(stream) for _ in range(length)] for _ in range(rows)])
losses, walls, cpus, resident, peak = [], [], [], status("VmRSS"), None
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
if args.method != "none":
    step = optimizer(model)
    model.train()
    for k in range(args.warmup + args.steps):
        ids = batch(args.rows, args.len)
        wall, cpu = time.perf_counter(), time.process_time()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        step.step()
        if args.method == "adalora":
            model.base_model.update_and_allocate(k)
        step.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if k >= args.warmup:
            walls.append(1e3 * (time.perf_counter() - wall))
            cpus.append(1e3 * (time.process_time() - cpu))
    peak = status("VmHWM")
rate = None
if args.generate:
    model.eval()
    model.config.use_cache = True
    stream = tokens(vocab)
    prompt = batch(1, 16)
    rates = []
    for _ in range(3):
        start = time.perf_counter()
        model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=args.generate,
                       min_new_tokens=args.generate, do_sample=False, pad_token_id=0)
        rates.append(args.generate / (time.perf_counter() - start))
    rate = max(rates)
print(json.dumps({
    "program": "peft", "model": os.path.basename(args.dir), "method": args.method, "base": args.base, "rows": args.rows, "len": args.len,
    "versions": {"torch": torch.__version__, "peft": peft.__version__},
    "params_trainable": sum(p.numel() for p in model.parameters() if p.requires_grad), "load_s": load_s, "resident_mib": resident,
    "peak_mib": peak or status("VmHWM"), "step_ms": walls, "cpu_ms": cpus, "losses": losses, "tokens_per_s": rate,
}))
