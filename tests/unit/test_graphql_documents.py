"""Documents: how large they may be, what is kept of them, which operation is meant."""

from __future__ import annotations

import pytest
from graphql import get_introspection_query, parse

from mdtool.services.gateway.graphql.documents import Documents
from mdtool.services.gateway.graphql.errors import DocumentError
from mdtool.services.gateway.graphql.limits import Limits, check_size
from mdtool.services.gateway.graphql.schema import check_schema, load_schema

LIMITS = Limits(depth=5, aliases=3, complexity=100)
GENEROUS = Limits(depth=20, aliases=30, complexity=20_000)
SCHEMA = load_schema()
SUBSCRIPTIONS = {"marketData", "bars", "quote", "book"}
QUERIES = SUBSCRIPTIONS | {"symbols", "trades", "storedSymbols"}


def documents(*, limits: Limits = GENEROUS, may_introspect: bool = True) -> Documents:
    return Documents(SCHEMA, limits, may_introspect=may_introspect)


def refusal(found: Documents, text: str) -> tuple[str, str]:
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
def test_what_is_small_enough_passes_whether_it_is_valid_or_not(text):
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
def test_what_nests_or_renames_too_much_is_refused(text, complaint):
    assert refusal(documents(limits=LIMITS), text)[0] == "QUERY_TOO_COMPLEX"
    assert complaint in refusal(documents(limits=LIMITS), text)[1]


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
def test_what_is_too_long_or_no_document_is_a_syntax_error(text):
    code, message = refusal(documents(), text)
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
def test_what_is_not_of_the_schema_is_invalid(text):
    assert refusal(documents(), text)[0] == "GRAPHQL_VALIDATION_FAILED"


def test_no_more_than_a_few_errors_are_told():
    with pytest.raises(DocumentError) as caught:
        documents().get("{" + " ".join(f"a{n}" for n in range(100)) + "}")
    assert len(caught.value.errors) <= 11


def test_clients_may_ask_for_the_schema_as_long_as_that_is_allowed():
    text = get_introspection_query(input_value_deprecation=True)
    assert documents().get(text)
    code, message = refusal(documents(may_introspect=False), text)
    assert code == "GRAPHQL_VALIDATION_FAILED"
    assert "introspection" in message


def test_a_schema_that_is_not_told_is_not_guessed_either():
    assert "symbols" in refusal(documents(), "{ symbol }")[1]
    assert "symbols" not in refusal(documents(may_introspect=False), "{ symbol }")[1]


def test_the_same_text_is_the_same_document():
    found = documents()
    assert found.get("{ symbols }") is found.get("{ symbols }")
    assert found.get("{ symbols }") is not found.get("{symbols}")


def test_documents_asked_for_longest_ago_are_forgotten():
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


def test_fields_are_planned_once_for_the_same_conditions():
    text = """query($x: Boolean!, $s: String = "A") {
        marketData(symbol: $s) { open @skip(if: $x) close }
    }"""
    operation = documents().get(text).operation(None)

    def fields(**given: object):
        return operation.fields(operation.variables(given))

    assert fields(x=True) is fields(x=True, s="B")
    assert fields(x=True) is not fields(x=False)
    for number in range(100):
        fields(x=bool(number % 2))
    assert len(operation._plans) == 2


@pytest.mark.parametrize(
    ("queries", "subscriptions", "complaint"),
    [
        (QUERIES - {"bars"}, SUBSCRIPTIONS, "Query: bars"),
        (QUERIES | {"volume"}, SUBSCRIPTIONS, "Query: volume"),
        (QUERIES, SUBSCRIPTIONS - {"bars"}, "Subscription: bars"),
    ],
)
def test_a_field_without_a_resolver_or_the_other_way_round_stops_the_gateway(
    queries, subscriptions, complaint
):
    with pytest.raises(TypeError, match=complaint):
        check_schema(SCHEMA, queries, subscriptions)
