"""XMP packets: the metadata in XML that pictures and videos of many formats can carry."""

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.sax.saxutils import escape

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
NAMESPACES = {  # prefixes of the properties that this package writes
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "dreamportrait": "urn:dreamportrait:provenance#",
}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # characters that XML cannot hold
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{rdf}">
  <rdf:Description rdf:about=""{namespaces}>
{properties}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


class ProvenanceError(ValueError):
    """A file, or what it says about its origin, cannot be read or contradicts itself."""


def write_packet(properties: Mapping[str, str]) -> bytes:
    """Return a packet with these properties, e.g. {"xmp:CreatorTool": "DreamPortrait"}."""
    lines = [
        f"   <{name}>{escape(_NOT_XML.sub(chr(0xFFFD), text), {chr(13): '&#13;'})}</{name}>"
        for name, text in properties.items()
    ]
    spaces = "".join(f'\n    xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())
    return _PACKET.format(rdf=RDF, namespaces=spaces, properties="\n".join(lines)).encode()


def read_packet(packet: bytes) -> dict[str, str]:
    """Return the properties with a prefix in NAMESPACES that a packet of unknown origin holds as plain text."""
    try:
        text = packet.rstrip(b"\0").decode("utf-8")
        if "<!DOCTYPE" in text:  # the only place where entities can be declared, which could expand without limit
            raise ProvenanceError("its XMP metadata declares a document type, which XMP never does")
        root = ElementTree.fromstring(text.strip("\ufeff \t\r\n"))
    except (ElementTree.ParseError, UnicodeDecodeError) as error:
        raise ProvenanceError(f"its XMP metadata is damaged: {error}") from None
    found: dict[str, str] = {}
    for description in root.iter(f"{{{RDF}}}Description"):
        pairs = [*description.attrib.items(), *((child.tag, child.text or "") for child in description)]
        for tag, value in pairs:
            uri, _, name = tag.removeprefix("{").partition("}")
            for prefix, known in NAMESPACES.items():
                if uri == known and found.setdefault(f"{prefix}:{name}", value) != value:
                    raise ProvenanceError(f"its XMP metadata has two different values of {prefix}:{name}")
    return found
