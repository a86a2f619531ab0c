from lit_entrodrop.data.documents import Document, digest_documents


def test_digest_sees_kind_order_and_boundaries() -> None:
    a, b, ab = (Document("text", content) for content in ("a", "b", "ab"))
    variants = [[a, b], [b, a], [ab], [Document("completion", "a"), b]]
    assert len({digest_documents(variant) for variant in variants}) == len(variants)
