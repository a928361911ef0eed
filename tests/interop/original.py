# The original implementation: loads a folder with transformers in fp32 with eager attention, as a
# stranger would (from_pretrained on the folder and nothing else), and keeps every complaint about
# weights that were missing, left over, of another shape or made up.
import copy
import logging

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

COMPLAINTS = ("missing", "unexpected", "not used", "newly initialized", "mismatch",
              "re-initialized")


class Listener(logging.Handler):
    """Collects what the library says at warning level and above."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


listener = Listener()


def listen():
    transformers.utils.logging.set_verbosity_warning()
    transformers.utils.logging.disable_progress_bar()
    logger = transformers.utils.logging.get_logger()
    logger.addHandler(listener)
    logger.propagate = False
    transformers.utils.logging.disable_default_handler()


def model_class(config):
    return getattr(transformers, config.architectures[0], None)


def load(folder):
    """The model and what was said about its weights ([] is what everybody hopes for)."""
    config = AutoConfig.from_pretrained(folder)
    cls = model_class(config)
    if cls is None:
        raise NotImplementedError(f"transformers {transformers.__version__} lacks "
                                  f"{config.architectures[0]}")
    listener.lines.clear()
    model, info = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                      output_loading_info=True)
    said = [f"{kind}: {sorted(map(str, names))[:3]}" for kind, names in info.items() if names]
    said += [line for line in listener.lines if any(c in line.lower() for c in COMPLAINTS)]
    wrong = {str(p.dtype) for p in model.parameters()} - {"torch.float32"}
    return model.eval(), said + [f"loaded as {t}" for t in wrong]


def from_tensors(folder, plain):
    """A model made from a folder's config and tensors read elsewhere. A zero bias that the
    architecture lacks (GPTQ files carry them) says nothing and is left out."""
    config = copy.deepcopy(AutoConfig.from_pretrained(folder))
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config._attn_implementation = "eager"
    model = model_class(config)(config).float()
    wanted = model.state_dict()
    state = {k: v.float() for k, v in plain.items()
             if k in wanted or not (k.endswith(".bias") and not v.any())}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if config.tie_word_embeddings:
        model.tie_weights()
        missing = [m for m in missing if m != "lm_head.weight"]
    if missing or unexpected:
        raise KeyError(f"missing {missing[:3]}, unexpected {unexpected[:3]}")
    return model.eval()


@torch.no_grad()
def logits(model, tokens):
    return model(input_ids=tokens.long()[None], use_cache=False).logits[0].float()


@torch.no_grad()
def picture(model, tokens, pixels, grid):
    """Embeddings of a picture and the logits of a prompt that shows it."""
    ids = tokens.long()[None]
    embeds = model.get_image_features(pixel_values=pixels, image_grid_thw=grid)
    embeds = getattr(embeds, "pooler_output", embeds)
    embeds = torch.cat(list(embeds)) if isinstance(embeds, (list, tuple)) else embeds
    types = (ids == model.config.image_token_id).int()
    out = model(input_ids=ids, pixel_values=pixels, image_grid_thw=grid, mm_token_type_ids=types,
                use_cache=False)
    return embeds.float(), out.logits[0].float()


def token_ids(folder, text):
    return AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False)["input_ids"]
