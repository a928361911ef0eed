# A reader of GPTQ and AWQ checkpoints that knows nothing of quern: written from the formats'
# description, it believes the label to the letter and takes every field bit by bit. Slow and plain
# on purpose; what it reads is what any other loader that trusts the label would read.
#   GPTQ  W[o,i] = scales[g_idx[i],o] · (code - zero), fields along the inputs (zeros: the outputs)
#   AWQ   the same, nibbles along the outputs in the order 0 2 4 6 1 3 5 7, zeros stored as they are
#         (gemm); gemv: along the inputs in natural order, zeros and scales padded to whole words
import glob
import json
import os

import torch
from safetensors import safe_open

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
CONFIG_FILES = ["quantize_config.json", "quant_config.json", "quantization_config.json"]


class Unreadable(Exception):
    pass


def shards(folder):
    """Paths of a checkpoint's weight files: those the index names, or model.safetensors."""
    index = os.path.join(folder, "model.safetensors.index.json")
    if os.path.exists(index):
        with open(index) as f:
            names = sorted(set(json.load(f)["weight_map"].values()))
        return [os.path.join(folder, name) for name in names]
    found = os.path.join(folder, "model.safetensors")
    return [found] if os.path.exists(found) else sorted(glob.glob(folder + "/*.safetensors"))


def tensors(folder):
    """Every tensor by name, read by the safetensors library; a name found twice is an error."""
    found = {}
    for path in shards(folder):
        with safe_open(path, "pt") as f:
            for name in f.keys():
                if name in found:
                    raise Unreadable(f"{path}: tensor {name} is in another file too")
                found[name] = f.get_tensor(name)
    return found


def config(folder):
    with open(os.path.join(folder, "config.json")) as f:
        return json.load(f)


def label(folder):
    """The quantization config, wherever it lies."""
    inside = config(folder).get("quantization_config")
    if inside:
        return inside
    for name in CONFIG_FILES:
        path = os.path.join(folder, name)
        if os.path.exists(path):
            with open(path) as f:
                return json.load(f)
    return None


def fields(words, bits):
    """int32 [n, m] to codes [n·32/bits, m]: a column is one stream of bits, lowest first."""
    stream = (words.to(torch.int64)[:, None, :] >> torch.arange(32)[None, :, None]) & 1
    stream = stream.reshape(-1, bits, words.shape[1])
    return (stream << torch.arange(bits)[None, :, None]).sum(1)


def awq_fields(words):
    """int32 [n, m] to codes [n, 8·m]: nibble i of a word is column ORDER[i] of its eight."""
    out = torch.empty(words.shape[0], words.shape[1] * 8, dtype=torch.int64)
    for i, column in enumerate(AWQ_ORDER):
        out[:, column::8] = (words.to(torch.int64) >> (4 * i)) & 15
    return out


def parts(all_tensors, prefix, said):
    """Codes [in,out], zeros [groups,out], scales [groups,out] in f32, group of every input [in]."""
    get = lambda suffix: all_tensors.get(prefix + suffix)
    qweight, qzeros, scales = get("qweight"), get("qzeros"), get("scales").float()
    bits, method = said.get("bits", said.get("w_bit")), said["quant_method"]
    if method == "auto-round" and said.get("packing_format", "").endswith("auto_gptq"):
        method = "gptq"  # AutoRound's own export: the same tensors, v1
    if method == "gptq":
        codes, zeros = fields(qweight, bits), fields(qzeros.T, bits).T
        if said.get("checkpoint_format", "gptq") == "gptq":  # v1 stores one less
            zeros = (zeros + 1) & ((1 << bits) - 1)
    elif method == "awq" and said.get("version", "gemm") == "gemm":
        codes, zeros = awq_fields(qweight), awq_fields(qzeros)
    elif method == "awq" and said["version"] == "gemv":
        codes, zeros, scales = fields(qweight.T, 4), fields(qzeros.T, 4), scales.T
    else:
        raise Unreadable(f"{method} {said.get('version', '')}: not a layout read here")
    inputs, group = codes.shape[0], said.get("group_size", said.get("q_group_size"))
    groups = torch.arange(inputs) // (group if group > 0 else inputs)
    if get("g_idx") is not None:
        groups = get("g_idx").long()
    if groups.max() >= scales.shape[0] or zeros.shape != scales.shape:
        raise Unreadable(f"{prefix}: {scales.shape[0]} groups of scales, {zeros.shape[0]} of "
                         f"zeros, {int(groups.max()) + 1} needed")
    return codes, zeros, scales, groups


def prefixes(all_tensors):
    return sorted(name[:-len("qweight")] for name in all_tensors if name.endswith(".qweight"))


def decode(folder, value=lambda code, zero: code - zero):
    """The folder as plain float tensors, in the layout of an unquantized checkpoint."""
    source, said = tensors(folder), label(folder)
    plain, known = {}, set()
    for prefix in prefixes(source):
        codes, zeros, scales, groups = parts(source, prefix, said)
        w = value(codes, zeros[groups]).float() * scales[groups]
        plain[prefix + "weight"] = w.T.contiguous()
        known |= {prefix + s for s in ("qweight", "qzeros", "scales", "g_idx")}
    for name, t in source.items():
        if name not in known:
            plain[name] = t
    return plain


def zero_scales(folder):
    scales = [t for name, t in tensors(folder).items() if name.endswith(".scales")]
    return sum(int((t == 0).sum()) for t in scales)


def padded_alike(folder, padded):
    """What differs when both are read here: old values at their places, zeros elsewhere. '' if all
    is well. quern leaves out all-zero biases that the architecture lacks."""
    before, after = decode(folder), decode(padded)
    idle = {name for name, t in before.items() if name.endswith(".bias") and not t.any()}
    before = {name: t for name, t in before.items() if name in after or name not in idle}
    if set(before) != set(after):
        return f"other tensors: {sorted(set(before) ^ set(after))[:3]}"
    for name, a in before.items():
        b = after[name]
        corner = b[tuple(slice(n) for n in a.shape)]
        if not torch.equal(corner, a):
            return f"{name}: {int((corner != a).sum())} values changed"
        if int((b != 0).sum()) != int((a != 0).sum()):
            return f"{name}: {int((b != 0).sum() - (a != 0).sum())} padded values are not 0"
    more = zero_scales(padded) - zero_scales(folder)
    return f"{more} scales of 0 were added" if more > 0 else ""
