"""Writes the files beside it. Needs: pip install gguf numpy safetensors

quants.safetensors: for each storage type random blocks (NAME.bytes) and what the package makes of them (NAME.values).
llama.gguf: one layer, q and k rearranged as llama.cpp's converter does, tensors of mixed types, byte-level tokenizer.
llama.safetensors: the tensors of llama.gguf under Hugging Face names, dequantised by the package, rows in HF order.
Not made here: tokenizer.json (byte-level BPE, used above) and sentencepiece.json (that of stories260K, MIT).
"""

import json
import pathlib
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from safetensors.numpy import save_file

here = pathlib.Path(__file__).parent
rng = np.random.default_rng(7)


def blocks(kind, count=4):
    """Random bytes; the f16 scales are kept small and finite."""
    values, size = gguf.GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
    at = {T.Q6_K: [208], T.Q4_0: [0], T.Q5_0: [0], T.Q8_0: [0]}.get(kind, [0, 2])
    for offset in at:
        raw[:, offset : offset + 2] = rng.normal(0, 0.05, (count, 1)).astype(np.float16).view(np.uint8)
    return raw


quants = {}
for kind in [T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.Q4_K, T.Q5_K, T.Q6_K]:
    raw = blocks(kind)
    quants[f"{kind.name}.bytes"] = raw.reshape(-1)
    quants[f"{kind.name}.values"] = gguf.dequantize(raw, kind).reshape(-1).astype(np.float32)
for kind in [T.F32, T.F16, T.BF16]:
    values = rng.normal(size=(2, 8)).astype(np.float32)
    raw = gguf.quantize(values, kind)
    quants[f"{kind.name}.bytes"] = np.ascontiguousarray(raw).view(np.uint8).reshape(-1)
    quants[f"{kind.name}.values"] = gguf.dequantize(raw, kind).reshape(-1).astype(np.float32)
save_file(quants, here / "quants.safetensors")

hidden, inner, heads, kv_heads, head_dim = 32, 64, 2, 1, 16
tokenizer = json.loads((here / "tokenizer.json").read_text())
vocab = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
special = {token["content"] for token in tokenizer["added_tokens"]}


def permute(weights, heads):
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


writer = gguf.GGUFWriter(here / "llama.gguf", "llama")
writer.add_context_length(64)
writer.add_embedding_length(hidden)
writer.add_block_count(1)
writer.add_feed_forward_length(inner)
writer.add_head_count(heads)
writer.add_head_count_kv(kv_heads)
writer.add_key_length(head_dim)
writer.add_value_length(head_dim)
writer.add_rope_dimension_count(head_dim)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_rope_freq_base(50000.0)
writer.add_tokenizer_model("gpt2")
writer.add_tokenizer_pre("gpt-2")
writer.add_token_list(vocab)
writer.add_token_types([3 if token in special else 1 for token in vocab])
writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)
writer.add_pad_token_id(0)
writer.add_add_bos_token(True)
writer.add_chat_template("{{ messages[0].content }}")

tensors = {}


def add(name, hf_name, shape, kind, heads=None):
    values = rng.normal(0, 0.1, shape).astype(np.float32)
    values = gguf.dequantize(gguf.quantize(values, kind), kind).astype(np.float32)
    tensors[hf_name] = values
    stored = permute(values, heads) if heads else values
    writer.add_tensor(name, gguf.quantize(stored, kind), raw_dtype=kind)


add("token_embd.weight", "model.embed_tokens.weight", (len(vocab), hidden), T.Q8_0)
layer = "model.layers.0."
add("blk.0.attn_norm.weight", layer + "input_layernorm.weight", (hidden,), T.F32)
add("blk.0.attn_q.weight", layer + "self_attn.q_proj.weight", (heads * head_dim, hidden), T.F32, heads)
add("blk.0.attn_k.weight", layer + "self_attn.k_proj.weight", (kv_heads * head_dim, hidden), T.F16, kv_heads)
add("blk.0.attn_v.weight", layer + "self_attn.v_proj.weight", (kv_heads * head_dim, hidden), T.BF16)
add("blk.0.attn_output.weight", layer + "self_attn.o_proj.weight", (hidden, heads * head_dim), T.Q5_1)
add("blk.0.ffn_norm.weight", layer + "post_attention_layernorm.weight", (hidden,), T.F32)
add("blk.0.ffn_gate.weight", layer + "mlp.gate_proj.weight", (inner, hidden), T.Q4_0)
add("blk.0.ffn_up.weight", layer + "mlp.up_proj.weight", (inner, hidden), T.Q4_1)
add("blk.0.ffn_down.weight", layer + "mlp.down_proj.weight", (hidden, inner), T.Q5_0)
add("output_norm.weight", "model.norm.weight", (hidden,), T.F32)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
save_file(tensors, here / "llama.safetensors")

import importlib.metadata as meta

versions = {name: meta.version(name) for name in ["gguf", "numpy", "safetensors"]}
(here / "versions.txt").write_text("".join(f"{k} {v}\n" for k, v in versions.items()) + f"python {sys.version.split()[0]}\n")
