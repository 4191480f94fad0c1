"""Names of classes: what can be one, and which differ only in spelling."""

import unicodedata

import pytest

from pipelines.config.class_names import BadClass, class_name, is_unlabelled, spelt_otherwise


@pytest.mark.parametrize("name", ["amanita muscaria", "Pfifferling (jung)", "電池", "a" * 100, "0", 'the "best"'])
def test_class_name_when_it_can_be_one_is_kept(name):
    assert class_name(f" {name} ") == name


def test_class_name_is_in_unicode_form_c():
    assert class_name(unicodedata.normalize("NFD", "Röhrling")) == "Röhrling"


@pytest.mark.parametrize(
    "name", ["", "  ", "a/b", "a\\b", "a\nb", "a\x00", ".", "..", "a" * 101, "good", "Anomaly", "unlabelled", "damage",
             "unlabeled", "a\u2028b", "\ufffd"]
)  # fmt: skip
def test_class_name_when_it_cannot_be_one_is_refused_in_a_line(name):
    with pytest.raises(BadClass, match="no name of a class") as caught:
        class_name(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", ["amanita_muscaria", "AMANITA-MUSCARIA", "AmanitaMuscaria", "amanita  muscaria"])
def test_class_when_spelt_otherwise_is_found(other):
    assert spelt_otherwise(other, ["Amanita muscaria", "boletus"]) == "Amanita muscaria"
    assert spelt_otherwise(other, ["Amanita muscaria", other]) is None
    assert spelt_otherwise("amanita pantherina", ["Amanita muscaria"]) is None


def test_unlabelled_is_read_in_both_spellings():
    assert is_unlabelled("Unlabeled ")
    assert not is_unlabelled("unknown")
