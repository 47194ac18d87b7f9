"""Documents: their limits, their validation, their cache, and the operation of a request."""

from __future__ import annotations

import pytest
from graphql import get_introspection_query, get_variable_values, parse

from mdtool.services.gateway.protocols.graphql.documents import Documents, Limits, check_size
from mdtool.services.gateway.protocols.graphql.errors import DocumentError
from mdtool.services.gateway.protocols.graphql.schema import make_schema
from tests.reference.plain_feeds import TABLE

LIMITS = Limits(depth=5, aliases=3, complexity=100)
GENEROUS = Limits(depth=20, aliases=30, complexity=20_000)
SCHEMA = make_schema(TABLE)


def documents(*, limits: Limits = GENEROUS, may_introspect: bool = True) -> Documents:
    return Documents(SCHEMA, limits, may_introspect=may_introspect)


def rejection(found: Documents, text: str) -> tuple[str, str]:
    with pytest.raises(DocumentError) as caught:
        found.get(text)
    first = caught.value.errors[0]
    return first["extensions"]["code"], first["message"]


def nested(levels: int) -> str:
    return "{" + "a{" * (levels - 1) + "a" + "}" * levels


@pytest.mark.parametrize(
    "text",
    [
        nested(5),
        "{ a: x b: x c: x d e }",
        "{ ...F ...F } fragment F on Query { a: x b: x }",
        "{ a { ... { b { ... on Query { c } } } } }",
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        "{ ...Missing }",
        "subscription { a: x } query { b: x }",
    ],
)
def test_a_small_document_passes_whether_it_is_valid_or_not(text):
    check_size(parse(text), LIMITS)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (nested(6), "nested more than 5 levels"),
        (nested(190), "nested more than 5 levels"),
        ("{ a { ...F } } fragment F on A { b { c { d { e { f } } } } }", "nested more than 5"),
        ("{ a { ...F } } fragment F on A { b { ...F } }", "nested more than 5"),
        (
            "{ ...A b { c { ...A } } } fragment A on Q { d { e { f { g } } } }",
            "nested more than 5",
        ),
        ("{ a: x b: x c: x d: x }", "more than 3 aliases"),
        ("{ a: x ... { b: x } ...F } fragment F on Q { c: x d: x }", "more than 3 aliases"),
        ("query A { a: x b: x } query B { c: x d: x }", "more than 3 aliases"),
    ],
)
def test_too_many_levels_or_aliases_are_rejected(text, complaint):
    assert rejection(documents(limits=LIMITS), text)[0] == "QUERY_TOO_COMPLEX"
    assert complaint in rejection(documents(limits=LIMITS), text)[1]


def test_fragments_that_double_at_each_step_take_no_time():
    chain = "".join(f"fragment F{n} on Query {{...F{n + 1} ...F{n + 1}}}" for n in range(60))
    text = "{...F0}" + chain + "fragment F60 on Query {symbols}"
    assert documents().get(text)


@pytest.mark.parametrize(
    "text",
    [
        "{" + "".join(f"a{n}:symbols " for n in range(10_000)) + "}",
        "{" + "".join(f"a{n}:symbols " for n in range(500)) + "}",
        "{" + "a{" * 9_000,
        "#" * 1_000_000 + "{symbols}",
        '{marketData(symbol:"' + "A" * 30_000 + '"){open}}',
        "{marketData(symbol:" + "[" * 5_000,
        "{symbols " + "@skip(if:true)" * 500 + "}",
        "{ symbols",
        "\x00",
        "",
    ],
)
def test_a_text_that_is_too_long_or_no_document_is_a_syntax_error(text):
    code, message = rejection(documents(), text)
    assert code == "GRAPHQL_PARSE_FAILED"
    assert len(message) < 200


@pytest.mark.parametrize(
    "text",
    [
        "{ nothing }",
        '{ marketData(symbol: "A") }',
        '{ marketData(symbol: "A") { nothing } }',
        "{ marketData { open } }",
        "{ marketData(symbol: 1) { open } }",
        "{ symbols { a } }",
        "mutation { a }",
        "subscription { symbols }",
        'subscription { marketData(symbol: "A") { open } bars(symbol: "A") { open } }',
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        "query($x: Int) { symbols }",
        "{ marketData(symbol: $x) { open } }",
        "fragment A on Query { symbols }",
        "type Query { a: Int }",
    ],
)
def test_a_document_that_the_schema_does_not_allow_is_invalid(text):
    assert rejection(documents(), text)[0] == "GRAPHQL_VALIDATION_FAILED"


def test_errors_of_a_document_are_bounded():
    with pytest.raises(DocumentError) as caught:
        documents().get("{" + " ".join(f"a{n}" for n in range(100)) + "}")
    assert len(caught.value.errors) <= 11


def test_introspection_can_be_disabled():
    text = get_introspection_query(input_value_deprecation=True)
    assert documents().get(text)
    code, message = rejection(documents(may_introspect=False), text)
    assert code == "GRAPHQL_VALIDATION_FAILED"
    assert "introspection" in message


def test_without_introspection_errors_suggest_no_names():
    assert "symbols" in rejection(documents(), "{ symbol }")[1]
    assert "symbols" not in rejection(documents(may_introspect=False), "{ symbol }")[1]


def test_the_same_text_is_the_same_document():
    found = documents()
    assert found.get("{ symbols }") is found.get("{ symbols }")
    assert found.get("{ symbols }") is not found.get("{symbols}")


def test_the_least_recently_used_documents_are_evicted():
    found = documents()
    kept, padding = "{ symbols }", "#" * 15_000
    first = found.get(kept)
    for number in range(100):
        found.get(f"{{ symbols }}{padding}{number}")
        assert found.get(kept) is first
    assert 10 < len(found) < 20


def test_an_operation_is_named_or_the_only_one():
    found = documents()
    two = found.get("query A { symbols } query B { symbols }")
    assert two.operation("B") is not two.operation("A")
    only = found.get("query A { symbols }")
    assert only.operation(None) is only.operation("") is only.operation("A")
    for document, name in ((two, None), (two, "C"), (only, "C")):
        with pytest.raises(DocumentError):
            document.operation(name)


def test_fields_are_read_once_for_the_same_conditions():
    text = """query($x: Boolean!, $s: String = "A") {
        marketData(symbol: $s) { open @skip(if: $x) close }
    }"""
    operation = documents().get(text).operation(None)

    def fields(**given: object):
        variables = get_variable_values(SCHEMA, operation.variable_definitions, given)
        return operation.fields(variables)

    assert fields(x=True) is fields(x=True, s="B")
    assert fields(x=True) is not fields(x=False)
    assert [each[0].selection for each in (fields(x=True), fields(x=False))] == [
        "{close:close}",
        "{open:open close:close}",
    ]
