"""Says in every exported file that a model made it, and reads such statements back.

    claim = claim_for("mini", weights_hash(generator))     program, version, model, hash of its weights
    save_picture(picture, "head.png", claim=claim)
    verify("head.png")                                       the Claim, or None

PNG, JPEG, WEBP, GIF, MP4 and WEBM carry an XMP packet, GLB carries `asset.extras`, pages carry JSON in a script, all
others get a JSON file beside them. With a certificate of the user, files are also signed by C2PA. docs/provenance.md
describes the fields.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dreamportrait import __version__
from dreamportrait.core.errors import listed, shown
from dreamportrait.core.files import write_text
from dreamportrait.export.credentials import check_signature, find_identity, sign
from dreamportrait.export.embedding import embed
from dreamportrait.export.extraction import MAX_READ, Statement, find_statements
from dreamportrait.export.xmp import ProvenanceError, read_packet, write_packet

MADE_BY_AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"  # the term of the IPTC for it
EXTRAS = "provenance"  # the key in a GLB's asset.extras and in a JSON file beside another file
SIDECAR_SUFFIX = ".provenance.json"
MAX_TEXT = 20_000  # characters of each text; prompts of more are refused
_PROPERTIES = {  # of XMP
    "generator": "Iptc4xmpExt:AISystemUsed",
    "version": "Iptc4xmpExt:AISystemVersionUsed",
    "model": "dreamportrait:Model",
    "model_sha256": "dreamportrait:ModelSHA256",
    "prompt": "Iptc4xmpExt:AIPromptInformation",
}
_SOURCE_TYPE, _TOOL = "Iptc4xmpExt:DigitalSourceType", "xmp:CreatorTool"


@dataclass(frozen=True)
class Claim:
    """The statement that a model made a file. It is a label and no proof: anyone can write it or remove it.

    It holds no date, no seed and no name of a person, and the prompt only if the user asks for it.
    """

    generator: str = "DreamPortrait"  # the program
    version: str | None = __version__
    model: str | None = None  # its name, without the folder it lies in
    model_sha256: str | None = None  # of the generator's weights, see weights/hashing.py
    prompt: str | None = None

    def __post_init__(self) -> None:
        for name, text in vars(self).items():
            if text is not None and not (isinstance(text, str) and 0 < len(text) <= MAX_TEXT):
                raise ProvenanceError(
                    f"{name} of a claim must be a text of 1 to {MAX_TEXT} characters, got {shown(str(text))}"
                )

    def to_dict(self) -> dict[str, str]:
        """Return the claim for JSON. What is unknown is left out."""
        return {"digital_source_type": MADE_BY_AI, **{name: text for name, text in vars(self).items() if text}}

    def extras(self) -> dict[str, Any]:
        """Return the claim for `asset.extras` of a GLB."""
        return {EXTRAS: self.to_dict()}

    def summary(self) -> str:
        """Return the claim in a line, for the comment that players show."""
        model = f", model {self.model}" if self.model else ""
        return f"Made by AI: {' '.join(filter(None, (self.generator, self.version)))}{model}"


class Evidence(NamedTuple):
    """What was found in a file."""

    claim: Claim
    places: tuple[str, ...]  # where it was: "XMP", "asset.extras", "C2PA", the name of a file
    signer: str | None  # whose certificate signed the file; no list of trusted certificates is consulted
    unchecked: bool  # there is a signature, but the library that checks it is not installed


def claim_for(source: str | Path, model_sha256: str, prompt: str | None = None) -> Claim:
    """Describe a model by the name that the user gave it ("mini" or a path) and its `weights_hash`.

    Of a path, only the last part is kept: the others may name a person.
    """
    return Claim(model=Path(source).resolve().name, model_sha256=model_sha256, prompt=prompt)


# ----- Writing --------------------------------------------------------------------------------------------


def mark(data: bytes, claim: Claim) -> bytes:
    """Return the bytes of a PNG, JPEG, WEBP, GIF or MP4 file with the claim in them, signed if there is an identity."""
    data, identity = embed(data, claim_packet(claim)), find_identity()
    return sign(data, identity, claim.generator, claim.version, MADE_BY_AI) if identity else data


def claim_packet(claim: Claim) -> bytes:
    """Return the claim as an XMP packet."""
    values = {_PROPERTIES[name]: text for name, text in vars(claim).items() if text}
    tool = " ".join(filter(None, (claim.generator, claim.version)))
    return write_packet({_SOURCE_TYPE: MADE_BY_AI, _TOOL: tool, **values})


def sidecar_path(path: str | Path) -> Path:
    path = Path(path)
    return path.with_name(path.name + SIDECAR_SUFFIX)


def write_sidecar(path: str | Path, claim: Claim) -> Path:
    """Write the claim and the SHA-256 of the finished file `path` to a JSON file beside it. Return its path."""
    target = sidecar_path(path)
    content = {"file": Path(path).name, "sha256": _sha256(Path(path)), **claim.extras()}
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return target


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


# ----- Reading --------------------------------------------------------------------------------------------


def verify(path: str | Path) -> Claim | None:
    """Return what a file says about its origin, or None. Raise ProvenanceError if it is damaged or contradicts itself.

    The file may come from anywhere. None does not mean that the file was not made by AI.
    """
    evidence = inspect(path)
    return evidence and evidence.claim


def inspect(path: str | Path) -> Evidence | None:
    """Return the claim of a file with the places that it was found in and the signature, or None without a claim."""
    path = Path(path)
    if not path.is_file():
        raise ProvenanceError(f"{path} is {'a folder; name a file' if path.is_dir() else 'not there'}")
    try:
        with path.open("rb") as file:
            statements = find_statements(file)
            signed = any(each.kind == "c2pa" for each in statements)
            signature = check_signature(file, MADE_BY_AI) if signed else None
        found = [pair for each in statements if (pair := _read(each))]
        if sidecar_path(path).exists():
            found.append((sidecar_path(path).name, _read_sidecar(path)))
        if signature and signature.generator and not found:  # otherwise XMP says more, and the signature covers it
            found.append(("C2PA", Claim(signature.generator, None)))
    except ProvenanceError as error:
        raise ProvenanceError(f"{path}: {error}") from None
    if not found:
        return None
    if len({claim for _, claim in found}) > 1:
        said = listed([f"{place} says {shown(claim.summary())}" for place, claim in found])
        raise ProvenanceError(f"{path} contradicts itself: {said}")
    places = tuple(dict.fromkeys(place for place, _ in found))
    return Evidence(found[0][1], places, signature and signature.signer, signed and signature is None)


def _read(statement: Statement) -> tuple[str, Claim] | None:
    if statement.kind == "xmp":
        claim = _from_properties(read_packet(statement.data))
        return ("XMP", claim) if claim else None
    if statement.kind == "json":
        values = _json(statement.data, "the JSON of the GLB file")
        for key in ("asset", "extras", EXTRAS):
            values = values.get(key) if isinstance(values, dict) else None
        return ("asset.extras", _from_dict(values)) if values is not None else None
    if statement.kind == "page":
        values = _json(statement.data, "the statement in the page")
        if not isinstance(values, dict):
            raise ProvenanceError("the statement in the page is damaged: it must be an object")
        return ("script#provenance", _from_dict(values[EXTRAS])) if EXTRAS in values else None
    return None


def _from_properties(properties: dict[str, str]) -> Claim | None:
    """Return the claim of an XMP packet, also of one that another program wrote. None = it does not speak of AI."""
    kind, model = properties.get(_SOURCE_TYPE, ""), properties.get(_PROPERTIES["model_sha256"])
    if kind != MADE_BY_AI:
        if kind and model:
            raise ProvenanceError(f"it names a model, but says that it is {shown(kind)}, not made by AI")
        return None
    values = {name: properties[key] for name, key in _PROPERTIES.items() if properties.get(key)}
    generator = values.pop("generator", properties.get(_TOOL) or "unknown")
    return Claim(generator, values.pop("version", None), **values)


def _from_dict(values: object) -> Claim:
    """Return the claim of `Claim.to_dict` after a round trip through JSON. Unknown keys are left out."""
    if not isinstance(values, dict) or values.get("digital_source_type") != MADE_BY_AI:
        raise ProvenanceError(f"its {EXTRAS} must be an object with digital_source_type {MADE_BY_AI}")
    known = {name: values[name] for name in _PROPERTIES if name in values}
    return Claim(**{"version": None, **known})


def _read_sidecar(path: Path) -> Claim:
    """Return the claim in the file beside `path`, after checking that it is about `path` as it is now."""
    with sidecar_path(path).open("rb") as file:
        data = file.read(MAX_READ + 1)
    if len(data) > MAX_READ:
        raise ProvenanceError(f"{sidecar_path(path).name} has more than {MAX_READ} bytes")
    values = _json(data, sidecar_path(path).name)
    if not isinstance(values, dict) or values.get("sha256") != _sha256(path):
        raise ProvenanceError(f"{sidecar_path(path).name} is about other content: the SHA-256 differs")
    return _from_dict(values.get(EXTRAS))


def _json(data: bytes, name: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProvenanceError(f"{name} is damaged: {shown(str(error))}") from None
