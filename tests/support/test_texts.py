"""Texts as users read them: likes once, times as people say them."""

import pytest

from zsadbench.support.texts import duration, first_sentence, grouped


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 m 00 s"), (245, "4 m 05 s"), (3599.6, "1 h 00 m"),
     (3720, "1 h 02 m"), (2 * 86400 + 3 * 3600, "2 d 03 h")],
)  # fmt: skip
def test_times(seconds, words):
    assert duration(seconds) == words


def test_what_differs_in_the_name_alone_is_said_once():
    told = [
        ("acr", "acr lacks x: `train acr --out c/acr-0123abcd-seed1`, --checkpoint acr=PATH"),
        (
            "aa_clip.visa",
            "aa_clip.visa lacks x: `train aa_clip.visa --out c/aa_clip.visa-9999abcd`, --checkpoint aa_clip.visa=PATH",
        ),
        ("acr", "acr lacks x: `train acr --out c/acr-7777abcd`, --checkpoint acr=PATH"),
        ("musc", "musc needs mask rule musc_visa"),
        ("musc[k=1]", "musc[k=1]: the code of musc has changed"),
    ]
    assert grouped(told) == [
        (["acr", "aa_clip.visa"], "METHOD lacks x: `train METHOD --out c/METHOD`, --checkpoint METHOD=PATH"),
        (["musc"], "musc needs mask rule musc_visa"),
        (["musc[k=1]"], "musc[k=1]: the code of musc has changed"),
    ]


def test_only_the_name_is_a_placeholder():
    rules = [(name, f"{name} needs mask rule musc_visa.") for name in ("musc", "acr")]
    assert grouped(rules) == [(["musc", "acr"], "METHOD needs mask rule musc_visa.")]


def test_the_first_sentence():
    assert first_sentence("a.py, line 3: v1.2 is bad. Mend it.") == "a.py, line 3: v1.2 is bad."
    assert first_sentence("all of it") == "all of it"
