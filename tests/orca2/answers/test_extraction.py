"""What an answer says, and what it does not say."""

import pytest

from orca2.answers.extraction import (
    Reader,
    choice_reader,
    extract,
    list_reader,
    number_reader,
    order_reader,
    span_reader,
    word_reader,
)
from orca2.answers.extraction.quantities import plain_number

FOUR = choice_reader({"A": "a ring", "B": "a field", "C": "a group", "D": "none of these"})
TWELVE = choice_reader({letter: f"option number {place}" for place, letter in enumerate("ABCDEFGHIJKL")})
OWN_WORDS = choice_reader({"A": "is not prime", "B": "is prime"})
DIGITS = choice_reader({"1": "red", "2": "green", "3": "1,000 blue", "4": "black"})
VERDICT = choice_reader({"valid": "valid", "invalid": "invalid"})
YES_NO = choice_reader({"Yes": "Yes", "No": "No"})
NUMBER = number_reader()
SPANS = span_reader("The Broncos beat the Chiefs by 3.5 points; 15,557 people came from Spain and Italy.")
WORD = word_reader()
BRACKETS = list_reader("( [ {")
WORDS = list_reader("List: pear apple zebra")
ORDER = order_reader({"A": "x", "B": "y", "C": "z"})

# One extraction bug of a peer's tracker a row: issue, reader, text, right value (None: nothing may be read).
PEER_BUGS: list[tuple[str, Reader, str, tuple[str, ...] | None]] = [
    ("lm-evaluation-harness#1355", FOUR, "To find the answer we compare them. The answer is (B).", ("B",)),
    ("lm-evaluation-harness#1356", FOUR, "Step 1: ... Step 2: ...\n\nTherefore, the final answer is B.", ("B",)),
    ("lm-evaluation-harness#1023", SPANS, "The passage says so. The answer is 3.5 points.", ("3.5 points",)),
    ("lm-evaluation-harness#978", SPANS, "Answer: 3.5", ("3.5",)),
    ("lm-evaluation-harness#1050", SPANS, "They came from two countries.\nAnswer: Spain; Italy", ("Spain", "Italy")),
    ("lm-evaluation-harness#2137", SPANS, "Answer: 15,557 people", ("15,557 people",)),
    ("lm-evaluation-harness#1159", NUMBER, "He pays 3 * 6 = 18.\nThe answer is $18.", ("18",)),
    ("lm-evaluation-harness#3438", NUMBER, "#### 5\nwas the example.\n#### 18", None),
    ("lm-evaluation-harness#3404", NUMBER, "So she makes $18 every day at the market.", ("18",)),
    ("lm-evaluation-harness#3210", NUMBER, "**Answer: \\$18 per day.**", ("18",)),
    ("lm-evaluation-harness#1134", YES_NO, "Let's think step by step. ... So the answer is Yes.", ("Yes",)),
    ("lm-evaluation-harness#1075", VERDICT, "The argument does not follow. So the answer is invalid.", ("invalid",)),
    ("lm-evaluation-harness#2095", FOUR, "So the answer is (C)", ("C",)),
    ("lm-evaluation-harness#1688", FOUR, "", None),
    ("lm-evaluation-harness#2511", FOUR, "A: Let's think step by step.", None),
    ("lm-evaluation-harness#2552", NUMBER, "Hence the answer is $\\boxed{1{,}000}$".replace("{,}", ","), ("1000",)),
    ("lm-evaluation-harness#3842", FOUR, "I cannot tell. Rings, fields and groups all fit A or B here.", None),
    ("lm-evaluation-harness#4187", FOUR, "B. a field", ("B",)),
    ("lm-evaluation-harness#2279", FOUR, "C.\n\nA group has one operation.", ("C",)),
    ("lm-evaluation-harness#3879", FOUR, "Conclusion: (B). Eliminated: (A), (C), (D).", None),
    ("opencompass#2600", FOUR, "Only A and C are close. I choose (D) in the end.", ("D",)),
    ("opencompass#1933", TWELVE, "Answer: Let's think step by step.", None),
    ("opencompass#1933", TWELVE, "Answer: Let's think step by step. ... So the answer is (C).", ("C",)),
    ("opencompass#1462", FOUR, "A characteristic of R is n. (B) seems near. The answer is (A).", ("A",)),
    ("opencompass#1818", NUMBER, "There are 12 eggs, 4 of them broken, in 3 boxes", None),
    ("opencompass#52", FOUR, "a field", ("B",)),
    ("inspect_ai#721", FOUR, "Weighing (A) against (D)...\n\nANSWER: D", ("D",)),
    ("inspect_evals#2488", NUMBER, "Answer: 115", ("115",)),
    ("inspect_evals#2488", BRACKETS, "Answer: ) )", (")", ")")),
    ("inspect_evals#2338", NUMBER, "Answer: 68844777777777", ("68844777777777",)),
    ("inspect_evals#2331", YES_NO, "yesno", None),
    ("inspect_evals#2334", YES_NO, "I don't know", None),
    ("inspect_evals#2142", FOUR, "ANSWER: C Trailing reason", ("C",)),
    ("inspect_evals#2457", FOUR, "D) none of these\nBoth a ring and a field fail.", ("D",)),
    ("openai/evals#1767", FOUR, "ANSWER: AB", None),
    ("openai/evals#1767", FOUR, "ANSWER: A ... actually, ANSWER: B", None),
    ("VLMEvalKit#1591", FOUR, "Answer: $B", ("B",)),
    ("olmes#7", SPANS, "Great question! Based on the passage, the answer is 3.5 points.", ("3.5 points",)),
]


@pytest.mark.parametrize(("issue", "reader", "text", "value"), PEER_BUGS)
def test_bugs_of_peers(issue: str, reader: Reader, text: str, value: tuple[str, ...] | None) -> None:
    """Each row scored wrongly in the evaluator whose issue is named."""
    found = extract(text, reader)
    assert (found.value, found.ok) == ((value or ()), value is not None), (issue, found)


READ = [
    (FOUR, "Answer: (B)", "B"),
    (FOUR, "answer: b", "B"),
    (FOUR, "**Answer:** B", "B"),
    (FOUR, "**Answer**: **B**", "B"),
    (FOUR, "Final answer: $\\boxed{\\text{B}}$", "B"),
    (FOUR, "### Answer\nB) a field", "B"),
    (FOUR, "Option B is the correct answer.", "B"),
    (FOUR, "Answer: a field.", "B"),
    (FOUR, "Answer: A because it has two operations.", "A"),
    (FOUR, "At first the answer is (C), it seems.\nNo: the answer is (B).", "B"),
    (DIGITS, "Answer: 3", "3"),
    (DIGITS, "Answer: (3) 1,000 blue", "3"),
    (YES_NO, "No, the wire did not.", "No"),
    (VERDICT, "**Invalid**", "invalid"),
    (FOUR, "Correct option: B", "B"),
    (FOUR, "(A) fails.\n\n**Best Option:** (B)", "B"),
    (FOUR, "(A) fails.\nOption: B", "B"),
    (FOUR, "Answer: The correct option is (B).", "B"),
    (FOUR, "Answer: (A) is correct.", "A"),
    (OWN_WORDS, "Answer: (A) is not prime, as 4 = 2 * 2.", "A"),
    (FOUR, "**Answer:** B\n\n#### Explanation\nOnly (B) has inverses.", "B"),
    (FOUR, "#### Option A\nfails.\n#### Option B\nholds.\nAnswer: (B)", "B"),
    (FOUR, "Both hold.\n#### B", "B"),
    (FOUR, "Answer: (B)\n\n**Explanation of the answer:** A ring lacks inverses.", "B"),
    (FOUR, "**Answer:** (B)\n\nWhy this is the correct answer: A is too weak.", "B"),
    (FOUR, "To find the answer: compare them.\n\nAnswer: (B)", "B"),
    (FOUR, "I think the answer is (B).", "B"),
    (FOUR, "Hence we may conclude that the answer is (B).", "B"),
    (FOUR, "At first I thought of rings. The answer is (B).", "B"),
    (FOUR, "\\boxed{\\text{a field}}", "B"),
    (FOUR, "\\boxed{\\text{B. a field}}", "B"),
]


@pytest.mark.parametrize(("reader", "text", "label"), READ)
def test_choice_is_read(reader: Reader, text: str, label: str) -> None:
    """A form that models use and that would otherwise count as no answer."""
    found = extract(text, reader)
    assert found.ok and found.value == (label,)
    assert found.span and found.span[0] < found.span[1] <= len(text)


SILENT = [
    (FOUR, "A ring is closed under addition. I like B, but C is a group and D says none."),
    (FOUR, "Answer: A characteristic of a ring"),
    (FOUR, "Answer: Let's see"),
    (FOUR, "Answer: A or B"),
    (FOUR, "Answer: (A) and (C)"),
    (FOUR, "Answer: (letter)"),
    (FOUR, "Answer: B. a ring"),
    (FOUR, "Answer: B\n\nWait, the answer is C."),
    (FOUR, "If the answer is (A), then every ring is a field."),
    (FOUR, "The answer is not (A)."),
    (FOUR, "It is tempting to say the answer is (A)."),
    (FOUR, "Is the answer (A)? So the answer is (A)?"),
    (FOUR, "Option A is correct in part, but fails."),
    (FOUR, "(A) a ring\n(B) a field\n(C) a group\n(D) none of these"),
    (FOUR, 'Finish with one line "Answer: (X)", where X is the letter of the right option.'),
    (FOUR, "Answer: \\boxed{"),
    (FOUR, "Answer: (A) is incorrect."),
    (FOUR, "Answer: (A) is wrong, so (B)"),
    (FOUR, "Answer: A isn't a field"),
    (FOUR, "One might think the answer is (A), but it is actually B."),
    (FOUR, "At first glance the answer is (A), but on closer look B fits."),
    (FOUR, "I initially thought the answer was (A), but B fits better."),
    (FOUR, "Many students think the answer is (A). It is B."),
    (FOUR, "A common mistake is to think that the answer is (A)."),
    (FOUR, "#### A\nis weak.\n#### B\nis strong."),
    (FOUR, "Option: A\nfits well\nOption: B\nfails"),
    (DIGITS, "Answer: 1,500"),
    (YES_NO, "Answer: Yes or No"),
    (YES_NO, "Not sure. None of them knows."),
    (VERDICT, "Answer: not valid"),
    (NUMBER, "Answer: N"),
    (NUMBER, "Answer: between 3 and 5"),
    (NUMBER, "Answer: 3 to 5"),
    (NUMBER, "She has 12 apples and 5 pears."),
    (NUMBER, "Answer:\nShe has 16 eggs per day.\nShe sells 9 of them, so she earns 9 * 2 = 18 dollars."),
    (NUMBER, "Answer: She has 16 eggs per day. She sells some."),
    (NUMBER, "Answer: 16 - 7 = 9\n9 * 2 = 18"),
    (NUMBER, "Answer:\n1. She has 16 eggs.\n2. She sells 9."),
    (NUMBER, "Answer: 12 apples and 3 pears"),
    (NUMBER, "Answer: 9 * 9"),
    (NUMBER, "Answer: not 18"),
    (NUMBER, "Answer: 2 hours 15 minutes"),
    (NUMBER, "Answer: 18, 20"),
    (NUMBER, "#### 1. Find the eggs\nShe has 16.\n#### 2. Sell\nNine."),
    (NUMBER, "The answer is found by adding 5."),
    (SPANS, "Answer: Let's look at the passage first."),
    (SPANS, "I really do not know"),
    (SPANS, 'Say "Answer:" and then only the answer.'),
    (WORD, "Answer: the old man"),
    (WORDS, "I would sort these words"),
    (BRACKETS, "We need to close them. First, count."),
]


@pytest.mark.parametrize(("reader", "text"), SILENT)
def test_reasoning_is_not_an_answer(reader: Reader, text: str) -> None:
    """A lone letter or number of reasoning, or two answers, would give credit by chance."""
    found = extract(text, reader)
    assert not found.ok and found.value == ()


def test_two_different_finals_are_named_a_conflict() -> None:
    """A report must tell hedging from silence."""
    assert extract("Answer: A\nAnswer: B", FOUR).rule == "conflict"
    assert extract("Answer: A\nAnswer: (A)", FOUR) == (("A",), True, "marker", (19, 20))
    assert extract("nothing here", FOUR).rule == "none"
    assert extract("Answer: well", FOUR).rule == "unreadable"


def test_repeated_question_says_nothing() -> None:
    """A base model that echoes its prompt must not score by a phrase in the prompt."""
    question = "Tom says the answer is (B). Is he right?\n(A) yes\n(B) no"
    assert not extract(question, FOUR, question).ok
    found = extract(f"{question}\n\nAnswer: A", FOUR, question)
    assert found.value == ("A",) and found.span == (len(question) + 10, len(question) + 11)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("#### 1,319", "1319"),
        ("Answer: -3.50", "-3.5"),
        ("Answer: 5 + 3 = 8", "8"),
        ("The answer is 10 because 2 * 5 = 10.", "10"),
        ("Tom had 5. Therefore, he has 12 now.", "12"),
        ("42", "42"),
        ("Answer: **$1,000.00**", "1000"),
        ("\\boxed{1{,}000}", "1000"),
        ("\\boxed{\\$1\\,000}", "1000"),
        ("Answer: x = 18\n\nShe sells 9 at 2 each.", "18"),
        ("Answer: 18. She sells 9 * 2 = 18.", "18"),
        ("Answer: 18 (16 - 7 = 9 eggs)", "18"),
        ("Answer: 18, which is twice 9", "18"),
        ("Answer: 5 million", "5000000"),
        ("Answer: $2.5 thousand dollars", "2500"),
        ("It costs 1,250 million.\nAnswer: 0.0012345 million", "1234.5"),
        ("-3 billion", "-3000000000"),
        ("Answer: 18\n\nLet's verify the answer: 18 / 2 = 9, which fits.", "18"),
        ("#### 1. Find the eggs\nShe has 16.\n#### 2. Sell them\nAnswer: 18", "18"),
        ("#### 18\n\nThat is all.", "18"),
        ("To get the answer: 9 * 2 = 18", "18"),
        ("Answer: 25-17=8 sessions", "8"),
        ("Answer: $9 \\times 2 = \\boxed{18}$", "18"),
        ("### Answer\nJanet makes **$18** every day.", "18"),
        ("Answer: She sells 16 - 7 = 9. She makes 9 * 2 = 18 dollars.", "18"),
        ("Answer: She has 16 eggs per day. She sells 9.\nThe final answer is 18.", "18"),
        ("Answer:\nStep 1: She has 16 eggs.\nTherefore, the answer is 18.", "18"),
        ("Answer:\n1. She has 16 eggs.\n2. She sells 9.\nTherefore, the answer is 18.", "18"),
    ],
)
def test_number_is_read(text: str, value: str) -> None:
    """Numbers come with signs, commas, currency, units and calculations."""
    assert extract(text, NUMBER).value == (value,)


@pytest.mark.parametrize(
    "number",
    [
        "12·4",
        "1,5",
        "1,0000",
        "3-5",
        "12:30",
        "1 25",
        "7½",
        "5²",
        "2x",
        "18th",
        "1e4000",
        "1/0",
        "10^3",
        "sqrt(18)",
        "18+",
    ],
)
def test_part_of_a_number_is_none(number: str) -> None:
    """Read as 1 or 7 in the right format, it could be right by chance, and a right answer would be wrong."""
    for text in (f"Answer: {number}", f"The answer is {number}", f"\\boxed{{{number}}}", number):
        assert not extract(text, NUMBER).ok


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("1'000", "1000"),
        ("1 000", "1000"),
        ("1\u202f000", "1000"),
        ("12 345 678", "12345678"),
        ("1e3", "1000"),
        ("18.5e3", "18500"),
        ("2 × 10^-3", "0.002"),
        ("1.25 \\times 10^{3}", "1250"),
        ("7 1/2", "7.5"),
        ("7\\frac{1}{2}", "7.5"),
        ("-\\frac{5}{4}", "-1.25"),
        ("1/3", "1/3"),
        ("15\\%", "15"),
        ("15 percent", "15"),
        ("−3 °C", "-3"),
        ("5km", "5"),
        ("$18/day", "18"),
        ("18k", "18000"),
        ("1.2 million", "1200000"),
        ("2 hundred", "200"),
    ],
)
def test_a_number_is_read_whole(number: str, value: str) -> None:
    """A right answer in another usual spelling counted as none, or as another number."""
    for text in (f"Answer: {number}", f"The answer is {number}", f"Answer:\n{number}", f"\\boxed{{{number}}}", number):
        assert extract(text, NUMBER).value == (value,), text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Answer: St. Louis Rams", ("St. Louis Rams",)),
        ("Answer: Dr. Smith. He scored twice.", ("Dr. Smith",)),
        ("Answer: Rams vs. Giants; Gen. Lee", ("Rams vs. Giants", "Gen. Lee")),
        ("Answer: 35 yards. Rams won.", ("35 yards",)),
        ("Answer: The answer is 35 yards", ("35 yards",)),
        ("Answer: So the final answer is 35 yards.", ("35 yards",)),
        ("To find the answer:\nThe Bears kicked.\n\nAnswer: 35 yards", ("35 yards",)),
        ("Answer: 35 yards\n\nThe answer is stated in the passage.", ("35 yards",)),
        ("#### Analysis\nThey ran.\n#### Conclusion\nAnswer: 35 yards", ("35 yards",)),
        ("\\boxed{\\text{Spain; Italy}}", ("Spain", "Italy")),
    ],
)
def test_span_is_read(text: str, value: tuple[str, ...]) -> None:
    """A point after "St" would end the span, and a phrase after the marker would be a part of it."""
    assert extract(text, SPANS).value == value


def test_phrase_after_a_marker_is_no_conflict() -> None:
    """A marker's own value that began with "The answer is" differed from the phrase's."""
    assert extract("Answer: The answer is apple pear zebra", WORDS).value == ("apple", "pear", "zebra")
    assert extract("Answer: The missing word is signs.", WORD).value == ("signs",)
    assert extract("Answer: B\nAnswer: The answer is C", FOUR).rule == "conflict"


@pytest.mark.parametrize("form", ["**{}**.", "`{}`.", '"{}".', "**{}.**", "\\boxed{{\\text{{{}}}}}", "{}."])
def test_markup_is_no_part_of_a_sequence(form: str) -> None:
    """`zebra**` is another word than `zebra`, and the answer was right."""
    text = form.format("apple pear zebra")
    assert extract(f"Therefore the answer is {text}", WORDS).value == ("apple", "pear", "zebra")
    assert extract(f"Answer: {text}", WORDS).value == ("apple", "pear", "zebra")
    assert extract(f"Answer: {form.format('] )')}", BRACKETS).value == ("]", ")")


def test_plain_number_is_exact() -> None:
    """Floats would make long numbers equal, and Python refuses to convert very long ones."""
    assert [plain_number(text) for text in ("1,000.50", "-0", ".5", "−4", "007", "1.", "", "1e5")] == [
        "1000.5",
        "0",
        "0.5",
        "-4",
        "7",
        None,
        None,
        None,
    ]
    assert plain_number("9" * 5000) == "9" * 5000


def test_order_needs_every_label_once() -> None:
    """Part of an order is not an order."""
    for text in (
        "Answer: C, A, B",
        "Answer: (C) (A) (B)",
        "Answer: (C), (A), and (B)",
        "Answer: C, then A, and then B",
        "Answer: C -> A -> B",
        "The correct order is C, A, B.",
    ):
        assert extract(text, ORDER).value == ("C", "A", "B")
    for text in ("Answer: C, A", "Answer: C, A, A", "(A) comes first, then (B) and (C) follow."):
        assert not extract(text, ORDER).ok


def test_bare_texts() -> None:
    """A short answer without any announcement is common and legitimate."""
    assert extract("signs.", WORD).value == ("signs",)
    assert extract("apple pear zebra", WORDS).value == ("apple", "pear", "zebra")
    assert extract("] ]", BRACKETS).value == ("]", "]")
    assert extract("15,557 people", SPANS).value == ("15,557 people",)
