#!/usr/bin/env bash
# Our training steps against torch + peft on this machine, process by process in turn: times, memory, losses.
#
#   benches/compare_peft.sh [SHAPE] [ROUNDS]        SHAPE: nano, mini, smollm135
#
# PYTHON names an interpreter with torch, transformers, peft (and bitsandbytes for nf4); without one only ours run.
set -euo pipefail
cd "$(dirname "$0")/.."
shape=${1:-mini} rounds=${2:-3}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
step=$(cargo bench -q -p lowrank-cli --bench step --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*step-[^"]*\)".*/\1/p' | tail -1)
"$step" make "$shape" "$work/$shape"
"$python" -c 'import torch, transformers, peft' 2>/dev/null || { echo "skipped: $python has no torch, transformers and peft" >&2; python=; }

# case, its arguments for us, its arguments for the other
cases=(
    "lora f32|--method lora --base f32 --generate 32|--method lora --base f32 --generate 32"
    "lora bf16|--method lora --base bf16-compute --generate 32|--method lora --base bf16 --generate 32"
    "lora nf4|--method lora --base nf4 --generate 32|--method lora --base nf4 --generate 32"
    "lora nf4 bf16|--method lora --base nf4-compute|--method lora --base nf4-bf16"
    "dora f32|--method dora|--method dora"
    "adalora f32|--method adalora|--method adalora"
    "lora_fa f32|--method lora-fa|--method lora-fa"
)
for round in $(seq "$rounds"); do
    for case in "${cases[@]}"; do
        IFS='|' read -r name ours theirs <<<"$case"
        echo "round $round: $name" >&2
        adapter=()
        if [ -n "$python" ]; then
            "$python" benches/reference.py "$work/$shape" $theirs --save-adapter "$work/adapter" 2>"$work/log" | tail -1 >"$work/line" \
                || { tail -3 "$work/log" >&2; continue; }
            sed "s/^{/{\"case\": \"$name\", /" "$work/line" >>"$work/lines"
            adapter=(--adapter "$work/adapter")
        fi
        # AdaLoRA's file has ranks, but no plan to go on from.
        case $name in adalora*) adapter=() ;; esac
        "$step" run "$work/$shape" $ours "${adapter[@]}" | sed "s/^{/{\"case\": \"$name\", /" >>"$work/lines"
    done
done
"$step" table "$work/lines"
