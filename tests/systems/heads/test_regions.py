"""Tests of the region of a head that hair leaves bare."""

from small_heads import wall

from dreamportrait.mini.models import from_pretrained
from dreamportrait.systems.heads.landmarks import landmarks
from dreamportrait.systems.heads.regions import bare


def test_face_neck_and_bust_are_bare() -> None:
    model = from_pretrained("mini/head")
    found, place = bare(model), model.v_template
    marks = landmarks(model, place[None])[0]
    assert not found[place[:, 1].argmax()]  # the top of the head
    assert not found[place[:, 0].abs().where(place[:, 1] > -0.1, 0 * place[:, 0]).argmax()]  # an ear
    assert not found[(place[:, 2] < 0) & (place[:, 1] > marks[8, 1])].any()  # the back of the head
    assert found[place[:, 1] < marks[8, 1]].all()  # neck and shoulders, from behind too
    assert found[place[:, 2].argmax()]  # the nose
    for mark in marks[[4, 8, 12, 30, 48, 54]]:  # jaw, chin, nose, corners of the mouth
        assert found[(place - mark).norm(dim=1).argmin()]


def test_without_landmarks_all_vertices_count() -> None:
    assert bare(wall()).all()
