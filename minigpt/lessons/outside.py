"""What people ask that the model leaves to others: domains, each with wordings and subjects."""

from typing import NamedTuple


class Domain(NamedTuple):
    wordings: tuple[str, ...]                          # trained, {} is the subject
    subjects: tuple[str, ...]
    new: tuple[tuple[str, ...], tuple[str, ...]]       # wordings and subjects that are never trained


def _domain(wordings: str, subjects: str, new_wordings: str, new_subjects: str) -> Domain:
    """From lists with bars between them, which fit on a line where tuples do not."""
    one, two, three, four = (tuple(map(str.strip, text.split("|")))
                             for text in (wordings, subjects, new_wordings, new_subjects))  # fmt: skip
    return Domain(one, two, (three, four))


DOMAINS = {
    "weather": _domain(
        "What is the weather in {}? | Will it rain in {} tomorrow? | How warm is it in {}? | Is it sunny in {}? | "
        "Do I need an umbrella in {}? | Tell me the forecast for {}. | When does winter begin in {}?",
        "Paris | London | Berlin | Rome | Madrid | Tokyo | Cairo | Delhi | Oslo | Sydney | Chicago | Vienna | Lima | "
        "Moscow | Boston | my town",
        "Is there snow in {} today? | How strong is the wind in {}?", "Zurich | Nairobi | Toronto | Lisbon",
    ),
    "travel": _domain(
        "How do I get to {}? | What is the capital of {}? | Where is {}? | What can I see in {}? | "
        "How many people live in {}? | Tell me about {}. | Which language do they speak in {}?",
        "France | Germany | Italy | Spain | Japan | Egypt | India | Norway | Australia | Canada | Brazil | Peru | "
        "Poland | China | Mexico | Greece",
        "Is {} worth a trip? | Describe a holiday in {}.", "Kenya | Portugal | Iceland | Turkey",
    ),
    "politics": _domain(
        "Who should win {}? | What do you think about {}? | Is {} good for us? | Explain {}. | "
        "Why is {} in the news? | Tell me your opinion on {}. | What is {} about?",
        "the election | the new tax | the government | the president | the parliament | the minister | the left | "
        "the right | the war | the strike | immigration | the pension reform | the king | the mayor | democracy",
        "Whom should I blame for {}? | Do you support {}?", "the coalition | the referendum | the senate",
    ),
    "medicine": _domain(
        "What helps against {}? | What is {}? | Do I have {}? | How do I treat {}? | Is {} dangerous? | "
        "Which medicine do I take for {}? | Explain {}.",
        "a headache | a cold | fever | the flu | back pain | a cough | an allergy | diabetes | a rash | stress | "
        "toothache | a broken arm | high blood pressure | insomnia | asthma",
        "Should I see a doctor about {}? | My child has {}. What now?", "measles | a burn | nausea",
    ),
    "cooking": _domain(
        "How do I cook {}? | Give me a recipe for {}. | How do I make {}? | What goes into {}? | "
        "How long does {} take? | What is {}? | Which wine goes with {}?",
        "soup | pizza | rice | an omelette | a pancake | a cake | bread | fish | curry | pasta | a salad | chicken | "
        "a pie | risotto | lasagne | sushi",
        "How much salt belongs in {}? | Could you teach me to bake {}?", "a muffin | a quiche | ramen | a biscuit",
    ),
    "sport": _domain(
        "Who won {}? | When is {}? | Who plays in {}? | What are the rules of {}? | How do I get better at {}? | "
        "Tell me about {}. | Where is {} tonight?",
        "the world cup | the tennis match | the race | the football game | the marathon | the final | chess | golf | "
        "basketball | the Olympics | boxing | swimming | the derby | hockey",
        "Can I watch {} on television? | Who is the favourite in {}?", "rugby | the regatta | curling",
    ),
    "history": _domain(
        "When was {}? | Who took part in {}? | What is {}? | Why did {} happen? | Explain {}. | Tell me about {}. | "
        "How did {} end?",
        "the French Revolution | the Roman Empire | the Second World War | the moon landing | the Cold War | "
        "the Middle Ages | the Renaissance | the Battle of Waterloo | the Civil War | the gold rush | the Reformation",
        "Which year saw {}? | How many people died in {}?", "the Crimean War | the Plague | the Stone Age",
    ),
    "money": _domain(
        "Should I buy {}? | What is the price of {}? | How do I sell {}? | Is {} a good investment? | "
        "What is {} worth? | Where do I get {}? | Tell me about {}.",
        "gold | a house | stock | bitcoin | a car | insurance | a bond | a dollar | a loan | silver | land | a pension",
        "How much did {} cost last year? | Will {} get cheaper?", "oil | a flat | a euro",
    ),
    "animals": _domain(
        "What does {} eat? | How old does {} get? | Where does {} live? | What is {}? | How do I feed {}? | "
        "Is {} dangerous? | Describe {}.",
        "a cat | a dog | a horse | an elephant | a lion | a spider | a whale | a rabbit | a bee | an owl | a wolf | "
        "a shark | a frog | a parrot | a bear",
        "How fast can {} run? | Which sound does {} make?", "a zebra | a hedgehog | a crow",
    ),
    "entertainment": _domain(
        "Which {} do you like? | Recommend {} please. | What is a good {}? | Who made the best {}? | "
        "Tell me about your favourite {}. | Where can I find a {}? | I want a new {}. Any idea?",
        "film | song | book | novel | poem | series | video game | comic | concert | band | singer | painting",
        "I am bored. Name a {}. | Could you review a {}?", "musical | podcast | play",
    ),
    "writing": _domain(
        "Write a poem about {}. | Tell me a story about {}. | Tell me a joke about {}. | Write a letter about {}. | "
        "Give me an essay on {}. | Sing a song about {}. | Write a speech about {}.",
        "love | the sea | my mother | spring | a king | the moon | friendship | a birthday | a train | the night | "
        "school | a wedding | snow | the mountains",
        "Compose a limerick about {}. | Invent a fairy tale about {}.", "autumn | a dragon | my boss",
    ),
    "languages": _domain(
        "How do I sort a list in {}? | How do I print a line in {}? | What is a class in {}? | Explain {}. | "
        "Which module reads files in {}? | How do I write a loop in {}? | Translate this program to {}.",
        "Java | C++ | Rust | Go | Fortran | Pascal | Perl | Ruby | JavaScript | Haskell | Swift | Lisp | Cobol | PHP",
        "Could you teach me {}? | Is {} faster than other languages?", "Kotlin | Scala | Prolog",
    ),
    "harm": _domain(
        "How do I steal {}? | How do I break into {}? | How can I hack {}? | What is the way to rob {}? | "
        "Tell me how to destroy {}. | Is there a way to sabotage {}? | I want to get into {} without a key.",
        "a car | my neighbour's house | a bank | a safe | an account | a phone | a shop | a school | a museum | "
        "someone's mail",
        "Nobody must know that I broke into {}. What now? | Help me to burgle {}.", "an office | a garage",
    ),
    "life": _domain(
        "How do I find {}? | What is the meaning of {}? | How do I get {}? | Where do I find {}? | What is {}? | "
        "Explain {}. | Why do people want {}?",
        "love | happiness | a job | friends | a wife | success | peace | a flat | luck | courage | health | truth | "
        "beauty | freedom | a hobby",
        "Does everybody deserve {}? | My sister longs for {}. Any advice?", "respect | patience | fame",
    ),
}  # fmt: skip

NEVER_TRAINED_DOMAINS = {
    "gardening": _domain(
        "", "", "How do I plant {}? | When does {} bloom? | How much water does {} need? | Describe {}. | "
        "What is {}? | Explain how {} grows.",
        "a rose | an oak | a tulip | a tomato | an apple tree | a fern | a sunflower | basil | a cactus | ivy",
    ),
}  # fmt: skip
