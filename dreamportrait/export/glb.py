"""Writes GLB files: glTF 2.0 with its JSON and its binary data in one file.

    glb = Glb(extras={"made_by": "AI"})
    material = glb.add_material(texture=png)
    glb.add_mesh("head", positions=..., normals=..., faces=..., uv=..., material=material)
    content = glb.to_bytes()

Axes are those of glTF: x to the right of a viewer who looks at the front, y up, z towards the viewer; lengths are
metres. See https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html.
"""

import json
import struct
from typing import Any

import numpy as np
from numpy import ndarray as Array

from dreamportrait import __version__

JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
COMPONENTS = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
SHAPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP = 9729, 9987, 33071
UNLIT = "KHR_materials_unlit"
SPARSE = 0.4  # displacements of fewer vertices than this share are stored sparsely


class Glb:
    """A glTF document under construction."""

    def __init__(self, extras: dict[str, Any] | None = None) -> None:
        """`extras` is stored in the file as `asset.extras`, for statements about its origin."""
        self.document: dict[str, Any] = {"asset": {"version": "2.0", "generator": f"DreamPortrait {__version__}"}}
        if extras:
            self.document["asset"]["extras"] = extras
        self._binary = bytearray()

    def add(self, what: str, entry: dict[str, Any]) -> int:
        """Append an entry to one of the document's lists, such as "nodes", and return its index."""
        entries = self.document.setdefault(what, [])
        entries.append(entry)
        return len(entries) - 1

    def add_array(
        self,
        values: Array,  # [N] or [N, C]
        target: int | None = ARRAY_BUFFER,  # what the GPU uses it for. None = nothing: animations, for example
        normalized: bool = False,  # integers stand for 0 .. 1
        bounds: bool = False,  # store the smallest and the largest values; positions need them
    ) -> int:
        """Store an array and return the index of its accessor."""
        values = np.ascontiguousarray(values)
        rows = values.reshape(len(values), -1)
        if values.dtype.name not in COMPONENTS or rows.shape[1] not in SHAPES:
            raise TypeError(
                f"an array of {values.dtype.name} with {rows.shape[1]} columns: glTF has {', '.join(COMPONENTS)} with "
                f"{', '.join(map(str, SHAPES))} columns"
            )
        width = rows.itemsize * rows.shape[1]
        if target == ARRAY_BUFFER and width % 4:
            raise ValueError(f"{values.dtype.name} {list(rows.shape)} has rows of {width} bytes; 4 must divide them")
        accessor: dict[str, Any] = {
            "bufferView": self._add_view(values.tobytes(), target),
            "componentType": COMPONENTS[values.dtype.name],
            "count": len(values),
            "type": SHAPES[rows.shape[1]],
        }
        if normalized:
            accessor["normalized"] = True
        if bounds:
            accessor |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        return self.add("accessors", accessor)

    def add_displacements(self, values: Array) -> int:  # [V, 3]
        """Store how far vertices move, of those that do where they are few, and return the index of the accessor."""
        values = np.ascontiguousarray(values, np.float32)
        moved = np.flatnonzero((values != 0).any(1))
        if len(moved) >= SPARSE * len(values):
            return self.add_array(values, bounds=True)
        accessor: dict[str, Any] = {"componentType": COMPONENTS["float32"], "count": len(values), "type": "VEC3"}
        accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        if len(moved):
            kind = "uint32" if len(values) > 0xFFFF else "uint16"
            accessor["sparse"] = {
                "count": len(moved),
                "indices": {
                    "bufferView": self._add_view(moved.astype(kind).tobytes(), None),
                    "componentType": COMPONENTS[kind],
                },
                "values": {"bufferView": self._add_view(values[moved].tobytes(), None)},
            }
        return self.add("accessors", accessor)

    def show(self, node: int) -> None:
        """Make a node a part of the scene."""
        if "scenes" not in self.document:
            self.document |= {"scene": self.add("scenes", {"nodes": []})}
        self.document["scenes"][0]["nodes"].append(node)

    def add_material(self, texture: bytes | None = None, name: str = "skin", lit: bool = False) -> int:
        """Add a material; `texture`: a PNG file. Unless it is `lit`, its colours are shown as they are, without lights.

        Pictures of generators contain the light of the scene, and a viewer's light would act a second time. Programs
        that do not know the extension show a rough surface that is no metal.
        """
        surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
        if texture is not None:
            image = self.add("images", {"bufferView": self._add_view(texture, None), "mimeType": "image/png"})
            filters = {"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, "wrapS": CLAMP, "wrapT": CLAMP}
            surface["baseColorTexture"] = {
                "index": self.add("textures", {"source": image, "sampler": self.add("samplers", filters)})
            }
        material: dict[str, Any] = {"name": name, "pbrMetallicRoughness": surface}
        if not lit:
            self.document["extensionsUsed"] = [UNLIT]
            material["extensions"] = {UNLIT: {}}
        return self.add("materials", material)

    def add_mesh(
        self,
        name: str,
        *,
        positions: Array,  # [V, 3] metres
        normals: Array,  # [V, 3] of length 1
        faces: Array,  # [F, 3] counter-clockwise from outside
        material: int,
        uv: Array | None = None,  # [V, 2] from the upper left corner of the texture
        colors: Array | None = None,  # [V, 3] uint8, sRGB
    ) -> int:
        """Add a mesh and a node of the scene that shows it; return the index of the node."""
        attributes = {
            "POSITION": self.add_array(positions.astype(np.float32), bounds=True),
            "NORMAL": self.add_array(normals.astype(np.float32)),
        }
        if uv is not None:
            attributes["TEXCOORD_0"] = self.add_array(uv.astype(np.float32))
        if colors is not None:
            attributes["COLOR_0"] = self.add_array(linear(colors), normalized=True)
        wide = len(positions) > 0xFFFF  # 0xFFFF itself is reserved
        indices = self.add_array(faces.ravel().astype(np.uint32 if wide else np.uint16), ELEMENT_ARRAY_BUFFER)
        primitive = {"attributes": attributes, "indices": indices, "material": material}
        mesh = self.add("meshes", {"name": name, "primitives": [primitive]})
        node = self.add("nodes", {"name": name, "mesh": mesh})
        self.show(node)
        return node

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        binary = bytes(self._binary)
        document = self.document | {"buffers": [{"byteLength": len(binary)}]} if binary else self.document
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
        chunks = _chunk(JSON_CHUNK, text, b" ")
        if binary:
            chunks += _chunk(BINARY_CHUNK, binary, b"\0")
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def _add_view(self, content: bytes, target: int | None) -> int:
        view = {"buffer": 0, "byteOffset": len(self._binary), "byteLength": len(content)}
        self._binary += _padded(content, b"\0")
        return self.add("bufferViews", view if target is None else view | {"target": target})


def linear(colors: Array) -> Array:  # [V, 3] uint8, sRGB -> [V, 4] uint16
    """Return colours in the linear scale that glTF uses for vertices; 8 bits would be too coarse in the dark."""
    shares = colors / 255
    light = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    opaque = np.ones((len(light), 1))
    rounded: Array = (np.concatenate([light, opaque], 1) * 0xFFFF + 0.5).astype(np.uint16)
    return rounded


def _chunk(kind: int, content: bytes, filling: bytes) -> bytes:
    content = _padded(content, filling)
    return struct.pack("<II", len(content), kind) + content


def _padded(content: bytes, filling: bytes) -> bytes:
    return content + filling * (-len(content) % 4)
