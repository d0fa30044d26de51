"""`zsadbench list methods` and `list_methods` show the methods that fit, at 80 columns."""

import json

import pytest
from commands import zsadbench

import zsadbench as z
from zsadbench import methods


def listed(*filters) -> list[str]:
    return [row["name"] for row in json.loads(zsadbench("list", "methods", "--json", *filters).stdout)]


def test_scope_is_what_the_card_says():
    cards = {item.name: item.card for item in methods.available()}
    for scope in ("image", "batch", "category"):
        expected = [name for name, card in cards.items() if card.scope == scope]
        assert expected and listed("--scope", scope) == z.list_methods(scope=scope) == expected


def test_trained_and_training_free_go_by_presets_and_a_method_may_be_both():
    trained, free = listed("--trained"), listed("--training-free")
    assert (trained, free) == (z.list_methods(trained=True), z.list_methods(trained=False))
    assert "april_gan" in trained and "april_gan" not in free
    assert "musc" in free and "musc" not in trained
    assert "clip_ad" in trained and "clip_ad" in free  # SDP needs no training, SDP+ does
    assert {*trained, *free} == {*z.list_methods()}


def test_search_reads_name_title_and_paper_in_any_case():
    assert listed("--search", "WINCLIP") == z.list_methods(search="WINCLIP")
    assert "winclip" in listed("--search", "WINCLIP")
    nothing = zsadbench("list", "methods", "--search", "no such words")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "No methods fit.\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["methods", "--scope", "imag"], "Unknown scope 'imag'. Did you mean 'image'?"),
        (["datasets", "--trained"], "--scope, --trained, --training-free and --search are for methods; got datasets."),
    ],
)
def test_a_filter_that_does_not_fit_is_told(arguments, told):
    done = zsadbench("list", *arguments)
    assert done.returncode == 2 and done.stderr == f"Error: {told}\n"


def test_lists_fit_80_columns():
    for kind in ("methods", "datasets"):
        assert max(map(len, zsadbench("list", kind).stdout.splitlines())) <= 80
