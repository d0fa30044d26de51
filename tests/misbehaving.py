"""A catalogue of methods that misbehave, as plugins: what each does where, and what is said about it."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

TEMPLATE = """
import os, sys, time
from dataclasses import dataclass
import numpy as np
import torch
from zsadbench.encoders.features import FeatureRequest
from zsadbench.errors import DataError
from zsadbench.methods import EncoderConfig, Method, MethodCard, Prediction, register
{at_import}

@dataclass(frozen=True)
class Config(EncoderConfig):
    encoder: str = "tiny"
    shots: int = {shots}

@register
class Toy(Method):
    card = MethodCard(title="{name}", reference="none", scope="{scope}")
    presets = {{"default": Config()}}
    shots = {shots}

    def __init__(self, config, encoder):
        super().__init__(config, encoder)
        self.request = FeatureRequest(tokens=[1, 2], cls=True)
        {in_init}

    def remember(self, references):
        {in_remember}

    def predict(self, batch):
        maps = torch.cat([self.maps(part) for part in batch.split()])
        return Prediction(maps.amax((1, 2)), maps)

    def maps(self, batch):
        tokens = batch.features(self.encoder, self.request).tokens(2)
        {in_predict}
        return tokens.std(dim=-1).reshape(len(batch), self.encoder.grid, self.encoder.grid)
"""


class Misbehaviour(NamedTuple):
    """What a method does, and words of the sentence that its cells fail with; "" if they do not fail."""

    words: str
    in_predict: str = "pass"
    at_import: str = ""
    in_init: str = "pass"
    in_remember: str = "pass"
    scope: str = "image"

    @property
    def code(self) -> str:
        """The statement itself."""
        return next(
            code
            for code in (self.at_import, self.in_init, self.in_remember, self.in_predict)
            if code != "pass" and code
        )

    def source(self, name: str) -> str:
        """Return the plugin's file."""
        return TEMPLATE.format(name=name, shots=int(self.in_remember != "pass"), **self._asdict())


CHANGES = {  # what methods share, changed; each must fail alone, and its neighbours' bytes stay the same
    "in_place": Misbehaviour(
        "the features that it was lent (tokens.2) at catalogue0/methods/in_place.py:36",
        "tokens /= tokens.norm(dim=-1, keepdim=True)",
    ),
    "in_place_all": Misbehaviour("the features", "tokens /= tokens.norm(dim=-1, keepdim=True)", scope="category"),
    "in_place_numpy": Misbehaviour("(tokens.2)", "tokens.numpy()[...] *= 2"),
    "in_place_data": Misbehaviour("(tokens.2)", "tokens.data.mul_(2)"),
    "in_place_order": Misbehaviour("(tokens.2)", "tokens.copy_(tokens.flip(1).clone())"),
    "in_place_once": Misbehaviour("(tokens.2)", "if 'crack' in str(batch.paths): tokens[:1] = 0"),
    "in_place_crash": Misbehaviour("(tokens.2)", "tokens.zero_(); [][1]"),
    "dtype": Misbehaviour(
        "torch's default dtype (torch.float64, was torch.float32) at", "torch.set_default_dtype(torch.float64)"
    ),
    "device": Misbehaviour("torch's default device (meta, was cpu)", "torch.set_default_device('meta')"),
    "device_context": Misbehaviour("torch's default device", "torch.device('meta').__enter__()"),
    "autocast": Misbehaviour("autocast on cpu", "torch.autocast('cpu').__enter__()"),
    "precision": Misbehaviour("float32 matmul precision", "torch.set_float32_matmul_precision('medium')"),
    "deterministic": Misbehaviour("deterministic mode", "torch.use_deterministic_algorithms(True)"),
    "threads": Misbehaviour("the number of threads", "torch.set_num_threads(torch.get_num_threads() + 1)"),
    "grad": Misbehaviour("grad mode", "torch.set_grad_enabled(True)"),
    "inference": Misbehaviour("grad mode", "self.mode = torch.inference_mode(False); self.mode.__enter__()"),
    "cudnn": Misbehaviour("cudnn.benchmark (True, was False)", "torch.backends.cudnn.benchmark = True"),
    "denormal": Misbehaviour("flushing of denormal numbers", "torch.set_flush_denormal(True)"),
    "numpy_errors": Misbehaviour("numpy's handling", "np.seterr(all='raise')"),
    "folder": Misbehaviour("the working directory", "os.chdir('/')"),
    "weights": Misbehaviour("the encoder's weights", "[p.mul_(2) for p in self.encoder.module.parameters()]"),
    "weights_data": Misbehaviour(
        "the encoder's weights", "[p.data.mul_(2) for p in self.encoder.text.module.parameters()]"
    ),
    "weights_row": Misbehaviour(
        "the encoder's weights (image.class_embedding", "self.encoder.module.class_embedding[-1] += 1"
    ),
    "weights_late": Misbehaviour(
        "the encoder's weights", "if 'crack' in str(batch.paths): self.encoder.positions.mul_(2)"
    ),
    "train_mode": Misbehaviour("the encoder's parts (image", "self.encoder.module.train()"),
    "hook": Misbehaviour(
        "the encoder's hooks (image.ln_post) at catalogue0/methods/hook.py:36",
        "self.encoder.module.ln_post.register_forward_hook(lambda *a: a[2] * 2)",
    ),
    "patched": Misbehaviour("the encoder's parts (block 1)", "self.encoder.blocks[0].mlp = lambda x: x * 0"),
    "init_weights": Misbehaviour("the encoder's weights", in_init="[p.mul_(2) for p in encoder.module.parameters()]"),
    "init_dtype": Misbehaviour("torch's default dtype", in_init="torch.set_default_dtype(torch.float64)"),
    "init_half": Misbehaviour("the encoder's weights", in_init="encoder.module.half()"),
    "remember_weights": Misbehaviour(
        "the encoder's weights", in_remember="[p.mul_(2) for p in self.encoder.module.parameters()]"
    ),
    "remember_dtype": Misbehaviour("torch's default dtype", in_remember="torch.set_default_dtype(torch.float64)"),
}
ENDS = {  # whatever ends a call is a failed cell
    "sys_exit": Misbehaviour("SystemExit without a message (at", "sys.exit()"),
    "sys_exit_text": Misbehaviour("SystemExit: done (at", "sys.exit('done')"),
    "generator_exit": Misbehaviour("GeneratorExit", "raise GeneratorExit"),
    "base_exception": Misbehaviour("BaseException: mine", "raise BaseException('mine')"),
    "stop_iteration": Misbehaviour("StopIteration", "next(iter(()))"),
    "memory": Misbehaviour("MemoryError", "raise MemoryError"),
    "recursion": Misbehaviour("RecursionError", "self.maps(batch)"),
    "nothing_said": Misbehaviour("DataError without a message (at", "raise DataError('')"),
    "much_said": Misbehaviour("(10,000,000 characters)", "raise ValueError('x' * 10_000_000)"),
    "odd_error": Misbehaviour(
        "its message cannot be read", "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})"
    ),
    "init_exit": Misbehaviour("SystemExit", in_init="sys.exit(0)"),
    "remember_exit": Misbehaviour("SystemExit", in_remember="sys.exit(0)"),
}
SLOW = {
    "sleeps": Misbehaviour("took longer than the", "time.sleep(60)"),
    "loops": Misbehaviour("took longer than the", "while True: tokens.sum()"),
    "remember_sleeps": Misbehaviour("took longer than the", in_remember="time.sleep(60)"),
}
RETURNS = {  # what is no prediction
    "none": Misbehaviour("NoneType", "return None"),
    "bare": Misbehaviour("has no encoder after __init__ (", in_init="del self.encoder"),
}
HARMLESS = {  # legal, and without effect on others
    "draws": Misbehaviour("", "torch.rand(3); np.random.rand(3); __import__('random').random()"),
    "seeds": Misbehaviour("", "torch.manual_seed(0); np.random.seed(0); __import__('random').seed(0)"),
    "noisy": Misbehaviour("", "tokens = tokens + torch.randn_like(tokens) * np.random.rand()"),
    "prints": Misbehaviour("", "print('a word of the plugin')"),
    "filters": Misbehaviour("", "__import__('warnings').simplefilter('error')"),
    "images": Misbehaviour("", "batch.images.zero_()"),
    "closes": Misbehaviour("", "sys.stdout = sys.stderr = open(os.devnull, 'w')"),
}
ALL = CHANGES | ENDS | SLOW | RETURNS | HARMLESS
GOOD = {"calm": Misbehaviour(""), "calm_all": Misbehaviour("", scope="category")}


def write(folder: Path, ones: Mapping[str, Misbehaviour] = ALL | GOOD) -> Path:
    """Write some, by default all of them and two that are fine, below a --plugins folder."""
    (folder / "methods").mkdir(parents=True)
    for name, one in ones.items():
        (folder / "methods" / f"{name}.py").write_text(one.source(name))
    return folder
