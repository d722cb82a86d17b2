"""Greetings, thanks, "who are you?", and what the model politely leaves to others.

A refusal is one fixed phrase with variations. Its questions begin as the questions about Python do, so that it is
the subject that decides and not the first words; other programming languages are among the subjects for that reason.
The side `templates` holds wordings, subjects and one whole domain that are never trained.
"""

from collections.abc import Iterator
from functools import cache
from itertools import product
from random import Random

from minigpt.lessons.exchange import REFUSAL, Exchange, Lesson, LessonSide, check_for, is_on, lesson
from minigpt.lessons.outside import DOMAINS, NEVER_TRAINED_DOMAINS

REFUSALS = (
    f"I am sorry, I can {REFUSAL}.",
    f"Sorry, I can {REFUSAL}. Ask me about a module or a function.",
    f"I do not know that. I can {REFUSAL}.",
    f"That is outside of what I learned. I can {REFUSAL}.",
)

ABOUT_ME = "I am minigpt, a small language model, trained from scratch on one computer."
WHAT_I_DO = "I answer short questions about Python's standard library: modules, functions and their parameters."
NOT_HUMAN = "No. I am minigpt, a small language model: a program that continues text."
MADE_OF = "I am minigpt. I learned from the documentation of Python's own library."

# kind: (what a right answer names, answers, first parts, second parts): every question is one of each part
TALK: dict[str, tuple[list[str], tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "greeting": (
        ["Hello", "Python"], ("Hello! What do you want to know about Python?", "Hello! Ask me about Python."),
        ("Hello", "Hi", "Hey", "Good morning", "Good evening", "Good afternoon", "Hi there", "Hello there", "Greetings",
         "Hello again"),
        ("", "!", ".", " minigpt", " friend", ", computer", "! How are you?", ", nice to meet you.", "! Are you on?"),
    ),
    "thanks": (
        ["welcome"], ("You are welcome.", "You are welcome. Ask me more if you like."),
        ("Thanks", "Thank you", "Many thanks", "Great, thanks", "Perfect, thank you", "Good, thanks", "Thanks a lot"),
        ("", "!", ".", ", that helped.", ", minigpt.", " for the help.", ". That was quick.", ", I understand now."),
    ),
    "goodbye": (
        ["Goodbye"], ("Goodbye!", "Goodbye! Come back with more questions."),
        ("Bye", "Goodbye", "See you", "Good night", "Bye bye", "I have to go", "That is all", "See you later"),
        ("", "!", ".", ", minigpt.", " for today.", ", until tomorrow."),
    ),
    "identity": (
        ["minigpt"], (ABOUT_ME,),
        ("Who are you", "What are you", "What is your name", "Tell me your name", "Please introduce yourself",
         "Tell me who you are", "What do they call you", "Say something about yourself"),
        ("", "?", "!", ", please?", " today?", ", computer?", " really?"),
    ),
    "ability": (
        ["Python", "library"], (WHAT_I_DO,),
        ("What can you do", "How can you help me", "What do you know", "What can I ask you", "Can you help me",
         "What are you good at", "What questions do you answer", "Which topics do you know"),
        ("", "?", ", please?", " now?", ", minigpt?", " exactly?"),
    ),
    "not human": (
        ["No", "minigpt"], (NOT_HUMAN,),
        ("Are you human", "Are you a person", "Are you ChatGPT", "Are you alive", "Do you have feelings",
         "Are you conscious", "Do you have a body", "Am I talking to a human"),
        ("", "?", " or not?", ", honestly?", ", minigpt?"),
    ),
    "origin": (
        ["minigpt", "Python"], (MADE_OF,),
        ("What did you learn from", "Who taught you", "What is your training data", "What have you read",
         "Where does your knowledge come from", "How did you learn all this", "What were you trained on"),
        ("", "?", ", minigpt?", " exactly?"),
    ),
}  # fmt: skip

NEW_TALK = {
    "greeting": (("Good day", "Howdy", "Hello hello"), ("", "!", ", assistant.")),
    "thanks": (("Thanks so much", "I am grateful"), ("", "!", ", really.")),
    "goodbye": (("Farewell", "Bye for now"), ("", "!", ", see you.")),
    "identity": (("Who am I talking to", "May I ask your name"), ("", "?", ", sir?")),
    "ability": (("What is your job", "With what can you help"), ("", "?", ", friend?")),
    "not human": (("Are you a real person", "Is there a human behind you"), ("", "?", ", really?")),
    "origin": (("Who trained you", "From what did you learn"), ("", "?", ", friend?")),
}


@cache
def exchanges(side: LessonSide) -> tuple[Exchange, ...]:
    """All small talk and all refusals of a side, in a fixed order."""
    return (*talk(side), *refused(side))


def talk(side: LessonSide) -> Iterator[Exchange]:
    for kind, (must, answers, *parts) in TALK.items():
        first, second = NEW_TALK[kind] if side == "templates" else parts
        for number, (opening, ending) in enumerate(product(first, second)):
            key = f"{kind}|{(opening + ending).lower().strip('?!.')}"  # marks are decoration: they change no problem
            answer = answers[number % len(answers)]
            if is_on(side, key):
                yield Exchange(kind, key, opening + ending, answer, check_for(answer, must, slack=12))


def refused(side: LessonSide) -> Iterator[Exchange]:
    """Every domain, every subject in every wording."""
    for name, domain in (DOMAINS | NEVER_TRAINED_DOMAINS if side == "templates" else DOMAINS).items():
        wordings, subjects = domain.new if side == "templates" else (domain.wordings, domain.subjects)
        for number, (wording, subject) in enumerate(product(wordings, subjects)):
            key, answer = f"refusal|{name}|{wording}|{subject}", REFUSALS[number % len(REFUSALS)]
            if is_on(side, key):
                yield Exchange("refusal", key, wording.format(subject), answer, check_for(answer, [], slack=12))


def conversations(side: LessonSide, seed: int) -> Iterator[Lesson]:
    """Every one of them once, as conversations of one turn, in an order by seed."""
    rng = Random(f"small talk {side} {seed}")
    lessons = [lesson(exchange, rng) for exchange in exchanges(side)]
    rng.shuffle(lessons)
    yield from lessons
