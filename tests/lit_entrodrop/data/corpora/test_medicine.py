"""Medical files become one document per term or category."""

from xml.etree import ElementTree

from lit_entrodrop.data.corpora.medicine import icd_categories, obo_definitions

OBO = r"""format-version: 1.2
def: "Not a term." []

[Term]
id: X:1
name: Fever
def: "A \"high\"\ntemperature." [PMID:1]
comment: name: not this

[Term]
id: X:2
name: Undefined

[Term]
id: X:3
name: Old
def: "No longer used." []
is_obsolete: true

[Typedef]
id: part_of
name: part of
"""

ICD = """<list><chapter><section><diag><name>A00</name><desc>Cholera</desc>
<diag><name>A00.1</name><desc>Cholera El Tor</desc>
<inclusionTerm><note>Cholera eltor</note></inclusionTerm></diag></diag></section></chapter></list>
"""


def test_only_defined_terms_in_use_become_documents() -> None:
    assert obo_definitions(OBO) == ['Fever: A "high" temperature.']


def test_a_category_holds_its_subcategories_and_their_other_names() -> None:
    documents = icd_categories(ElementTree.fromstring(ICD))
    assert documents == ["A00: Cholera\nA00.1: Cholera El Tor; Cholera eltor"]
