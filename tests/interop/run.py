#!/usr/bin/env python3
"""Can others read what quern writes? Converts, repairs and pads the repository's fixtures, reads
the results with safetensors and transformers (fp32, eager) and with the small reader in packed.py,
and holds every logit against `quern dump` of the same folder. Prints tables; exit status 1 and a
list when anything disagrees. docs/interop.md keeps the last output.

    python3 -m venv X && X/bin/pip install torch transformers safetensors
    X/bin/python tests/interop/run.py --quern build/release/quern [--write docs/interop.md]

Not part of `make test`: it needs Python packages. Runs from anywhere, leaves nothing behind."""
import argparse
import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import safetensors
import torch
import transformers
from safetensors.torch import load_file, save_file

import original
import packed

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
DATA = os.path.join(ROOT, "tests", "data")
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
LIMIT = 1e-4  # of the logits' norm, at the worst position
TEXT = "The capital of France is Paris. 法国的首都是巴黎。 tokens, 123 and\n\n  blanks…"


class Failed(Exception):
    """quern said no; the text is its one line."""


class Bench:
    """The program, a place to write, and what went wrong so far."""

    def __init__(self, options, work):
        self.options, self.work, self.bad, self.checked, self.lines = options, work, [], 0, []

    def quern(self, *args):
        done = subprocess.run([self.options.quern, *args, "-q"], capture_output=True, text=True)
        if done.returncode:
            raise Failed(done.stderr.strip() or f"exit {done.returncode}")
        return done.stdout

    def make(self, command, source, name, *args):
        """One of quern's writing commands; returns the folder it made in place of the last one."""
        out = os.path.join(self.work, name)
        shutil.rmtree(out, ignore_errors=True)
        self.quern(command, source, out, *args)
        return out

    def dump(self, folder, *args):
        path = os.path.join(self.work, "dump.safetensors")
        self.quern("dump", folder, "-o", path, "--precision", "exact", "--threads", "1", *args)
        return load_file(path)

    def say(self, line=""):
        print(line, flush=True)
        self.lines.append(line)

    def expect(self, ok, where, what):
        """Counts a check; a failed one is remembered."""
        self.checked += 1
        if not ok:
            self.bad.append(f"{where}: {what}")
        return ok


# ---- material ----

def rel(path):
    return os.path.relpath(path, ROOT)


def subfolders(name):
    base = os.path.join(DATA, name)
    return [os.path.join(base, d) for d in sorted(os.listdir(base))
            if os.path.isdir(os.path.join(base, d)) and not d.startswith("broken-")]


def sources():
    bundled = [os.path.join(ROOT, "models", "tiny-qwen3"), os.path.join(DATA, "tiny-qwen3.5")]
    gptq = os.path.join(ROOT, "models", "tiny-qwen3-gptq-int8")
    packed_ones = subfolders("quantized") + [gptq] + subfolders("thirdparty")
    plain = subfolders("families") + bundled + [s for s in packed_ones if s.endswith("base-bf16")]
    return plain, [s for s in packed_ones if s not in plain]


def reference(folder):
    """The prompt and the stored logits that come with a fixture."""
    for path in ("reference.safetensors", "reference/reference.safetensors"):
        if os.path.exists(os.path.join(folder, path)):
            return load_file(os.path.join(folder, path))
    raise FileNotFoundError(f"{folder}: no reference.safetensors")


def sums(folder):
    for path in ("expected.json", "truth.json", "reference/expected.json"):
        if os.path.exists(os.path.join(folder, path)):
            with open(os.path.join(folder, path)) as f:
                found = json.load(f)
            return found.get("weights", found)
    return {}


# ---- measures ----

def words(tokens):
    return " ".join(str(int(t)) for t in tokens)


def distance(a, b):
    """The worst position's ‖a-b‖/‖b‖; anything not finite is infinitely far."""
    if a.shape != b.shape or not torch.isfinite(a).all():
        return float("inf")
    a, b = a.double(), b.double()
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1)).max())


def sha256(t):
    return hashlib.sha256(t.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def check_files(bench, folder, where):
    """The safetensors library reads every file, and an index names just what is there."""
    found = packed.tensors(folder)
    index = os.path.join(folder, "model.safetensors.index.json")
    if os.path.exists(index):
        with open(index) as f:
            content = json.load(f)
        total = sum(t.numel() * t.element_size() for t in found.values())
        bench.expect(set(content["weight_map"]) == set(found), where, "index names other tensors")
        bench.expect(content["metadata"]["total_size"] == total, where, "index has another size")
    else:
        bench.expect(len(packed.shards(folder)) == 1, where, "several files and no index")
    return found


def check_logits(bench, folder, tokens, where):
    """transformers against quern on one folder: the distance, and the original's logits."""
    model, said = original.load(folder)
    bench.expect(not said, where, f"transformers says {said}")
    theirs = original.logits(model, tokens)
    ours = bench.dump(folder, "--tokens", words(tokens))["logits"]
    far = distance(ours, theirs)
    bench.expect(far <= LIMIT, where, f"logits differ by {far:.1e}")
    return far, theirs, model


# ---- 1. convert ----

def check_values(bench, source, found, dtype, where):
    """Written values are the source's, rounded once: by the fixture's sums, or by torch."""
    if packed.label(source) is None and not packed.prefixes(found):
        plain = packed.tensors(source)
        for name, t in found.items():
            same = name in plain and torch.equal(t, plain[name].to(t.dtype))
            bench.expect(same, where, f"{name} is not the source's, rounded")
        bench.expect(set(plain) == set(found), where, "not the tensors of the source")
    for name, row in sums(source).items():
        ok = name in found and found[name].dtype == DTYPES[dtype]
        bench.expect(ok and sha256(found[name]) == row[dtype], where, f"{name}: other bytes")


def check_tokens(bench, folder, where):
    if not os.path.exists(os.path.join(folder, "tokenizer.json")):
        return
    ours = json.loads(bench.quern("tokenize", folder, TEXT, "--json"))["ids"]
    bench.expect(ours == original.token_ids(folder, TEXT), where, "tokenizers disagree")


def convert_one(bench, source):
    stored, row = reference(source), []
    size = sum(os.path.getsize(p) for p in packed.shards(source))
    for dtype in DTYPES:
        where = f"{rel(source)} → {dtype}"
        args = ["--shard-size", str(max(size, 100000))] if dtype == "f32" else []
        out = bench.make("convert", source, "converted", "--dtype", dtype, *args)
        found = check_files(bench, out, where)
        check_values(bench, source, found, dtype, where)
        check_tokens(bench, out, where)
        far, theirs, _ = check_logits(bench, out, stored["tokens"], where)
        row.append(far)
        if dtype == "f32":
            files, against = len(packed.shards(out)), distance(theirs, stored["logits"])
            bench.expect(against <= LIMIT, where, f"{against:.1e} from the stored reference")
    return f"{len(found):4d} {files:4d}  {row[0]:8.1e} {row[1]:8.1e} {row[2]:8.1e} {against:9.1e}"


def convert_all(bench, every):
    bench.say("1. Converted (quern convert --dtype …), transformers against quern")
    bench.say(f"{'source':<52} {'tens file':>9}  {'f32':>8} {'bf16':>8} {'f16':>8} "
              f"{'reference':>9}")
    each(bench, every, convert_one)


# ---- 2. pad ----

def pad_one(bench, source):
    """Padded float checkpoints compute what the unpadded ones do, in the original too."""
    tokens, row = reference(source)["tokens"], []
    _, before, _ = check_logits(bench, source, tokens, rel(source))
    for layout in ("tail", "interleave"):
        where = f"{rel(source)} padded, {layout}"
        out = bench.make("pad", source, "padded", "--tp", "4", "--layout", layout)
        check_files(bench, out, where)
        far, theirs, _ = check_logits(bench, out, tokens, where)
        moved = distance(theirs, before)
        bench.expect(moved <= LIMIT, where, f"padding moved the logits by {moved:.1e}")
        row += [f"{far:8.1e} {moved:8.1e}"]
    return f"{grown(source, out):>26}  " + "   ".join(row)


def grown(source, out):
    text = lambda folder: (lambda c: c.get("text_config", c))(packed.config(folder))
    a, b = text(source), text(out)
    keys = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size")
    sizes = [f"{a[k]} → {b[k]}" for k in keys if k in a and a[k] != b[k]]
    return ", ".join(sizes) or "divides already"


def pad_all(bench, every):
    bench.say("2. Padded (quern pad --tp 4): transformers against quern, padded against unpadded")
    bench.say(f"{'source':<52} {'intermediate':>26}  {'tail':>8} {'moved':>8}   "
              f"{'interl.':>8} {'moved':>8}")
    each(bench, every, pad_one)


# ---- 3. quantized folders that stay quantized ----

# Layouts that `quern pad` does not pad, by their fixtures' names; anything else has to work.
NOT_PADDED = ("ct-", "fp8-block", "actorder", "llmcompressor-")


# A fixture whose label lies cannot be read by it; this one has the same weights and does not lie.
HONEST = {"gptq-int4-mislabelled": "gptq-int4-g128"}


def pad_quantized_one(bench, source):
    tokens, where = reference(source)["tokens"], f"{rel(source)} padded"
    try:
        out = bench.make("pad", source, "padded", "--tp", "8")
    except Failed as refused:
        expected = any(part in source for part in NOT_PADDED)
        bench.expect(expected and "pad" in str(refused), where, str(refused))
        return "refused: " + str(refused).split(": ")[-1].split(";")[0][:60]
    check_files(bench, out, where)
    base, name = os.path.split(source)
    wrong = packed.padded_alike(os.path.join(base, HONEST.get(name, name)), out)
    bench.expect(not wrong, where, wrong)
    far = read_elsewhere(bench, out, tokens, where)
    return f"{grown(source, out):>26}  {'same values' if not wrong else 'differs':<12} {far:8.1e}"


def read_elsewhere(bench, folder, tokens, where):
    """transformers with weights decoded by packed.py against quern on the packed folder."""
    model = original.from_tensors(folder, packed.decode(folder))
    far = distance(bench.dump(folder, "--tokens", words(tokens))["logits"],
                   original.logits(model, tokens))
    bench.expect(far <= LIMIT, where, f"logits differ by {far:.1e}")
    return far


def quantized_all(bench, every):
    bench.say("3. Padded while quantized (quern pad --tp 8), read by tests/interop/packed.py")
    bench.say(f"{'source':<52} {'intermediate':>26}  {'values':<12} {'logits':>8}")
    each(bench, every, pad_quantized_one)


# ---- 4. repair ----

def break_copy(bench, source, name, value):
    """The source dequantized wrongly, as a dense f16 checkpoint: the damage of real reports."""
    out = os.path.join(bench.work, name)
    shutil.rmtree(out, ignore_errors=True)
    os.mkdir(out)
    plain = packed.decode(source, value)
    plain = {k: t.half() for k, t in plain.items() if not (k.endswith("o_proj.bias") or
                                                           (".mlp." in k and k.endswith(".bias")))}
    save_file(plain, os.path.join(out, "model.safetensors"), {"format": "pt"})
    config = packed.config(source)
    config.pop("quantization_config", None)
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f)
    return out


def values_off(found, right):
    """Tensors, values that differ, and by how many steps of their dtype at most."""
    off = steps = total = 0
    for name, t in found.items():
        total += t.numel()
        if t.dtype == torch.float32:
            continue
        a, b = (x.view(torch.int16).int() for x in (t, right[name]))
        a, b = (torch.where(x < 0, -(x & 0x7FFF), x) for x in (a, b))  # ordered, ±0 alike
        off += int((a != b).sum())
        steps = max(steps, int((a - b).abs().max()))
    return off, steps, total


def repair_one(bench, broken, right_source, dtype, name):
    tokens, where = reference(right_source)["tokens"], f"{name} repaired"
    out = bench.make("repair", broken, "repaired")
    found = check_files(bench, out, where)
    right = bench.make("convert", right_source, "right", "--dtype", dtype)
    off, steps, total = values_off(found, packed.tensors(right))
    bench.expect(steps <= 1 and off <= total // 100, where, f"{off} values, {steps} steps off")
    far, _, _ = check_logits(bench, out, tokens, where)
    with open(os.path.join(out, "quern-report.json")) as f:
        said = json.load(f)["summary"]
    exact, guessed = said.get("exact_groups", 0), said.get("estimated_groups", 0)
    bench.expect(guessed > 0 or off == 0, where, f"called exact, but {off} values are off")
    bench.say(f"{name:<52} {exact:>6} exact {guessed:>6} est. {off:>7} of {total} off   {far:8.1e}")


def repair_all(bench):
    quantized = lambda name: os.path.join(DATA, "quantized", name)
    signed = lambda code, zero: torch.where(code < 128, code, code - 256)
    shifted = lambda code, zero: code - zero - 1
    bundled = os.path.join(ROOT, "models", "tiny-qwen3-gptq-int8")
    bench.say("4. Repaired (quern repair), values against a conversion of the right source")
    bench.say(f"{'broken':<52} {'groups':>24} {'values':>20}   {'logits':>8}")
    cases = [
        ("broken-signed-view", None, "gptq-int8-g128", "f16"),
        ("broken-zero-off-by-one", None, "gptq-int4-g128", "bf16"),
        ("tiny-qwen3-gptq-int8, signed view", signed, bundled, "f16"),
        ("gptq-int8-channel, signed view", signed, "gptq-int8-channel", "f16"),
        ("gptq-int4-qwen2-bias, zero off by one", shifted, "gptq-int4-qwen2-bias", "f16"),
        ("gptq-int4-lastgroup, zero off by one", shifted, "gptq-int4-lastgroup", "f16"),
    ]
    for name, value, right, dtype in cases:
        right = quantized(right)  # an absolute path stays as it is
        try:
            broken = quantized(name) if not value else break_copy(bench, right, "broken", value)
            repair_one(bench, broken, right, dtype, name)
        except Failed as refused:
            bench.say(f"{name:<52} {str(refused)[:100]}")
            bench.expect(False, name, str(refused))
    relabelled(bench, quantized("gptq-int4-mislabelled"))
    bench.say()


def relabelled(bench, source):
    """A reader that believes the label gets nonsense before, and the right weights after."""
    where = "gptq-int4-mislabelled relabelled"
    right = sums(source)
    count = lambda folder: sum(sha256(t) == right[name]["f32"]
                               for name, t in packed.decode(folder).items() if name in right)
    out = bench.make("repair", source, "relabelled")
    check_files(bench, out, where)
    before, after = count(source), count(out)
    far = read_elsewhere(bench, out, reference(source)["tokens"], where)
    bench.expect(after == len(right), where, f"{after} of {len(right)} matrices are right")
    bench.say(f"{'gptq-int4-mislabelled, read by its label':<52} {before} of {len(right)} matrices "
              f"right before, {after} after {far:>14.1e}")


# ---- 5. pictures ----

def picture_one(bench, source):
    out = bench.make("convert", source, "converted", "--dtype", "bf16")
    where, stored = f"{rel(source)} with a picture", reference(source)
    if "vision.tokens" in stored:
        args = ["--tokens", words(stored["vision.tokens"]), "--image",
                os.path.join(source, "vision.png")]
    else:
        args = ["-p", "<|vision_start|><|image_pad|><|vision_end|>What colour is it?", "--image",
                os.path.join(source, "reference", "pictures", "00.png")]
    ours = bench.dump(out, *args)
    model, said = original.load(out)
    bench.expect(not said, where, f"transformers says {said}")
    embeds, theirs = original.picture(model, ours["tokens"], ours["vision.pixel_values"],
                                      ours["vision.grid_thw"].long())
    seen, far = distance(ours["vision.embeds"], embeds), distance(ours["logits"], theirs)
    bench.expect(seen <= LIMIT, where, f"embeddings differ by {seen:.1e}")
    bench.expect(far <= LIMIT, where, f"logits differ by {far:.1e}")
    return f"{len(embeds):>11} {seen:10.1e} {far:8.1e}"


def picture_all(bench, every):
    seeing = [s for s in every if "vision_config" in packed.config(s)]
    bench.say("5. Converted to bf16, a prompt with a picture (pixels as quern made them)")
    bench.say(f"{'source':<52} {'embeddings':>11} {'distance':>10} {'logits':>8}")
    each(bench, seeing, picture_one)


# ---- all of it ----

def each(bench, every, one):
    for source in every:
        if bench.options.only not in source:
            continue
        try:
            said = one(bench, source)
        except (Failed, NotImplementedError, KeyError, RuntimeError, packed.Unreadable) as e:
            said = f"{type(e).__name__}: {e}".splitlines()[0]
            bench.expect(False, rel(source), said)
        bench.say(f"{rel(source):<52} {said}")
    bench.say()


def write_into(path, lines):
    """Replaces the first fenced block after the line that says output."""
    with open(path) as f:
        text = f.read()
    head, rest = text.split("<!-- output -->\n", 1)
    tail = rest.split("\n```\n", 1)[1]
    with open(path, "w") as f:
        f.write(head + "<!-- output -->\n```\n" + "\n".join(lines).strip() + "\n```\n" + tail)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quern", default=os.path.join(ROOT, "build", "release", "quern"))
    parser.add_argument("--only", default="", help="sources whose path holds this text, or repair")
    parser.add_argument("--write", metavar="FILE", help="put the output into this document")
    options = parser.parse_args()
    options.quern = os.path.abspath(options.quern)
    torch.set_num_threads(1)
    original.listen()
    with tempfile.TemporaryDirectory(prefix="quern-interop-") as work:
        bench = Bench(options, work)
        version = bench.quern("--version").split("\n")[0]
        bench.say(f"{datetime.date.today()}: {version}; transformers {transformers.__version__}, "
                  f"torch {torch.__version__}, safetensors {safetensors.__version__}, "
                  f"Python {platform.python_version()}")
        bench.say()
        plain, quantized = sources()
        convert_all(bench, plain + quantized)
        pad_all(bench, plain)
        quantized_all(bench, quantized)
        if options.only in ("", "repair"):
            repair_all(bench)
        picture_all(bench, plain)
    bench.say(f"{bench.checked} checks, {len(bench.bad)} failed (limit for logits: {LIMIT:g})")
    for line in bench.bad:
        bench.say(f"FAILED {' '.join(line.split())[:300]}")
    if options.write and not options.only:
        write_into(options.write, bench.lines)
    return 1 if bench.bad else 0


if __name__ == "__main__":
    sys.exit(main())
