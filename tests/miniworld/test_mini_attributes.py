"""Tests of the miniature world's attributes: the meaning of codes, valid combinations, visibility."""

import numpy as np
import pytest

from dreamportrait.miniworld.attributes import (
    ATTRIBUTES,
    HELD_OUT,
    NUM_VALUES,
    TRAITS,
    Z_DIM,
    check_attributes,
    is_held_out,
    is_visible,
    make_attributes,
    read_code,
    sample_codes,
    settle,
    to_vector,
)


@pytest.fixture(scope="module")
def faces() -> list[dict[str, str]]:
    return [read_code(z)[0] for z in sample_codes(3000, seed=11)]


def unsettled(count: int, seed: int) -> list[dict[str, str]]:
    rng = np.random.Generator(np.random.PCG64(seed))
    return [{name: values[rng.integers(len(values))] for name, values in ATTRIBUTES.items()} for _ in range(count)]


def test_codes_are_reproducible():
    codes = sample_codes(5, seed=1)
    assert codes.shape == (5, Z_DIM) and codes.dtype == np.float32
    assert np.array_equal(sample_codes(50, seed=1)[:5], codes)
    assert not np.array_equal(sample_codes(5, seed=2), codes)
    assert sample_codes(0, seed=1).shape == (0, Z_DIM)
    # These are the first numbers of PCG64(1), so data sets made on other computers are the same.
    assert codes[0, :3] == pytest.approx([1.7291036, -1.4284534, 1.0277448], abs=1e-6)


def test_codes_are_gaussian():
    codes = sample_codes(2000, seed=3)
    assert abs(codes.mean()) < 0.01 and abs(codes.std() - 1) < 0.01


def test_bad_codes():
    with pytest.raises(ValueError, match="count=-1: cannot be negative"):
        sample_codes(-1, seed=1)
    with pytest.raises(ValueError, match=rf"an identity code has {Z_DIM} numbers, got shape \[3\]"):
        read_code(np.zeros(3, np.float32))


def test_reading_a_code_takes_the_largest_number():
    z = np.zeros(Z_DIM, np.float32)
    position = 0
    wanted = {"gender": "man", "hair_style": "curly", "facial_hair": "goatee", "clothes": "black", "skin": "dark"}
    for name, values in ATTRIBUTES.items():
        if name in wanted:
            z[position + values.index(wanted[name])] = 5
        position += len(values)
    assert position == NUM_VALUES
    z[NUM_VALUES:] = np.linspace(-4, 4, len(TRAITS))
    attributes, traits = read_code(z)
    assert wanted.items() <= attributes.items()
    assert attributes["hat"] == "none"  # the bias decides if the numbers are equal
    assert traits.shape == (len(TRAITS),) and traits.min() == -2 and traits.max() == 2


def test_every_value_occurs(faces):
    for name, values in ATTRIBUTES.items():
        shares = [np.mean([face[name] == value for face in faces]) for value in values]
        assert min(shares) > 0.02, name
    assert 0.4 < np.mean([face["hat"] == "none" for face in faces]) < 0.7


def test_settling_twice_changes_nothing():
    for attributes in unsettled(3000, seed=4):
        settled = settle(attributes)
        assert settle(settled) == settled
        check_attributes(settled)


def test_settled_faces_can_exist(faces):
    for a in [*faces, *map(settle, unsettled(1000, seed=5))]:
        assert a["gender"] == "man" or (a["facial_hair"] == "none" and a["hair_style"] != "bald")
        assert a["gender"] == "woman" or (a["lipstick"] == a["earrings"] == "none" and a["hair_style"] != "bun")
        assert a["hat"] == "none" or a["hair_style"] != "bun"
        assert a["hair_style"] != "long" or a["earrings"] == "none"
        assert a["age"] == "young" or a["hair_color"] not in ("black", "brown")


def test_settling_leaves_its_argument_alone():
    given = unsettled(1, seed=6)[0] | {"gender": "woman", "facial_hair": "beard"}
    before = dict(given)
    assert settle(given)["facial_hair"] == "none" and given == before


def test_making_attributes():
    plain = make_attributes()
    assert set(plain) == set(ATTRIBUTES) and settle(plain) == plain
    assert make_attributes(facial_hair="beard")["gender"] == "man"
    assert make_attributes(hat="cap", hat_color="red")["hat_color"] == "red"


def test_bad_attributes():
    with pytest.raises(ValueError, match="unknown attribute 'nose'; known are gender, age"):
        make_attributes(nose="big")
    with pytest.raises(ValueError, match="hat='crown': must be one of none, cap, beanie, wide"):
        make_attributes(hat="crown")
    with pytest.raises(ValueError, match=r"cannot be together .*\{'facial_hair': 'beard'\}; all chosen: .*'woman'"):
        make_attributes(gender="woman", facial_hair="beard")
    with pytest.raises(ValueError, match="'hair_style': 'bun'"):
        make_attributes(hair_style="bun", hat="cap")


def test_visibility():
    bald = make_attributes(gender="man", hair_style="bald")
    assert not is_visible(bald, "hair_color") and is_visible(bald, "hair_style")
    assert is_visible(bald | {"facial_hair": "beard"}, "hair_color")
    assert not is_visible(make_attributes(eyewear="sunglasses"), "eye_color")
    assert is_visible(make_attributes(eyewear="glasses"), "eye_color")
    assert not is_visible(make_attributes(), "hat_color") and is_visible(make_attributes(hat="wide"), "hat_color")


@pytest.mark.parametrize("pair", HELD_OUT, ids=lambda pair: "-".join(value for _, value in pair))
def test_held_out_pairs(pair):
    (one, first), (other, second) = pair
    both = make_attributes(**{one: first, other: second})
    assert is_held_out(both)
    assert not is_held_out(make_attributes(**{one: first}))
    assert not is_held_out(make_attributes(**{other: second}))


def test_a_hidden_pair_is_not_held_out():
    # On a bald head the hair colour shows only in the beard, and without a beard nowhere.
    bearded = make_attributes(hair_style="bald", facial_hair="beard", hair_color="blue")
    assert is_held_out(bearded)
    bald = make_attributes(gender="man", hair_style="bald", hair_color="pink", eyewear="glasses")
    assert not is_held_out(bald)
    assert is_held_out(bald | {"hair_style": "short"})


def test_held_out_faces_occur_but_are_few(faces):
    share = np.mean([is_held_out(face) for face in faces])
    assert 0.03 < share < 0.3


def test_vectors(faces):
    for face in faces[:200]:
        traits = np.linspace(-1, 1, len(TRAITS))
        vector = to_vector(face, traits)
        assert vector.shape == (Z_DIM,) and vector.dtype == np.float32
        assert vector[NUM_VALUES:] == pytest.approx(traits)
        position = 0
        for name, values in ATTRIBUTES.items():
            expected = [float(value == face[name] and is_visible(face, name)) for value in values]
            assert vector[position : position + len(values)].tolist() == expected, name
            position += len(values)
