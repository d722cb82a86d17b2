"""How people ask for a fact: {} is the name, or what one wants to do.

TRAINED wordings are learned, each with most facts; NEVER_TRAINED ones only examine. No sentence stands in both. A
wording of a follow-up holds two questions, for where a thing is and for what it takes.
"""

from minigpt.lessons.exchange import LessonSide

TRAINED = {
    "module": (
        "What is the module {} for?", "What does the module {} do?", "What is {}?", "Tell me about the module {}.",
        "Explain the {} module.", "Describe the module {}.", "What can I use {} for?", "What is the purpose of {}?",
        "I found import {} in a script. What is it?", "Why would I import {}?", "What do I get from import {}?",
        "Which kind of module is {}?", "{}?", "When do I need the module {}?", "What is in {}?",
        "Is {} worth knowing?", "Can you explain {} to me?", "Our program imports {}. What for?",
        "What does one do with {}?", "Give me an idea of {}.",
    ),
    "meaning": (
        "What does {} do?", "What is {}?", "What is {} for?", "Explain {}.", "Describe {}.", "Tell me about {}.",
        "Tell me what {} does.", "What happens when I use {}?", "I found {} in a script. What does it do?",
        "When do I need {}?", "help({})", "{}?", "What is the purpose of {}?", "Can you explain {} to me?",
        "What would {} do here?", "Is {} of any use?", "Our program calls {}. What does that do?",
        "What does one need {} for?", "Give me an idea of {}.", "The manual mentions {}. What is it?",
        "I want to know about {}.", "How does {} work?", "I see {} here. What is that?",
    ),
    "returns": (
        "What does {} return?", "What is the result of {}?", "What do I get from {}?", "Which value does {} return?",
        "Tell me what {} returns.", "What comes back when I call {}?", "What is the return value of {}?",
        "I call {}. What is the result?", "What value do I get back from {}?", "And {}, what does it return?",
        "Our program calls {}. What does it get?", "I want to know what {} returns.",
    ),
    "home": (
        "Which module has {}?", "Where is {} defined?", "Where do I find {}?", "What must I import to use {}?",
        "From which module do I import {}?", "In which module is {}?", "I need {}. What do I import?",
        "Which module does {} belong to?", "Where does {} come from?", "Which import gives me {}?",
        "NameError: name '{}' is not defined. Which module has it?", "Tell me the module of {}.",
        "Where can I find {}?", "Python says that {} is not defined. Where is it?",
        "I want to use {}. Which module do I need?", "Who knows where {} is?", "Is {} in some module?",
        "Give me the import for {}.", "Our program uses {}. Where is that from?", "To which module does {} belong?",
    ),
    "find": (
        "How do I {}?", "How can I {}?", "Which function can {}?", "What do I call to {}?", "I need to {}.",
        "I want to {}. What do I use?", "Is there a function to {}?", "How does one {} in Python?",
        "Which name do I use to {}?", "What is the way to {}?", "Tell me how to {}.", "Give me a function to {}.",
        "I have to {}. How?", "Can Python {}?", "My task is to {}. Which function helps?",
        "Who knows how to {}?",
    ),
    "parameters": (
        "Which parameters does {} take?", "What are the parameters of {}?", "Which arguments does {} accept?",
        "What do I pass to {}?", "How do I call {}?", "What is the signature of {}?", "List the parameters of {}.",
        "Tell me the arguments of {}.", "What does {} take?", "What goes into the brackets of {}?",
        "How many arguments does {} have, and which?", "Can you list the arguments of {}?",
        "I want to call {}. With what?", "Our program calls {}. What does it need?", "Give me the parameters of {}.",
        "What does one hand to {}?",
    ),
    "correction": (
        "No, I meant {}.", "Not {wrong}, {}!", "I meant {}, not {wrong}.", "Sorry, I wanted to ask about {}.",
        "That is not what I asked. I meant {}.", "Wrong one. What about {}?", "No, {} please.",
        "I made a mistake: I mean {}.", "Oh, I should have said {}.", "What I need is {}.",
        "You got me wrong, I asked for {}.", "Then tell me about {} instead.",
    ),
    "follow-up": (
        "Which module is it in? / Which parameters does it take?", "Where is it? / How do I call it?",
        "And where do I find it? / And what does it take?", "What must I import? / What do I pass to it?",
        "Where does it come from? / What are its parameters?", "And the module? / And the arguments?",
        "In which module is that? / Which arguments does it accept?", "Is it in a module? / Does it take arguments?",
        "Where can I import that from? / With what do I call that?", "Tell me its home. / Tell me what it needs.",
    ),
}  # fmt: skip

NEVER_TRAINED = {
    "module": (
        "Could you summarise the module {}?", "In one sentence, what is {} about?", "What would someone do with {}?",
        "I have never heard of the module {}.",
    ),
    "meaning": (
        "Could you summarise {}?", "In one sentence, what is {} good for?", "I do not understand {}.",
        "Somebody told me to use {}. What will it do?",
    ),
    "returns": ("I wonder what {} gives back.", "Calling {} gives me what?"),
    "home": (
        "What is the home of {}?", "{} lives in which module?", "Python does not know {}. What should I import?",
        "Name the module that contains {}.",
    ),
    "find": (
        "Could you show me how to {}?", "What would you use to {}?", "My program has to {}. Any idea?",
        "What is the best function if I must {}?",
    ),
    "parameters": (
        "Could you name the parameters of {}?", "{} wants which arguments?", "What should I hand over to {}?",
    ),
    "correction": ("Oh no, {} was my question.", "I confused the names, it is {} that I need.", "Rather {}."),
    "follow-up": (
        "Its module? / Its parameters?", "Name the module of that one. / Name the arguments of that one.",
    ),
}  # fmt: skip


def wordings_of(side: LessonSide) -> dict[str, tuple[str, ...]]:
    """The wordings of each kind on a side; train and test share theirs and differ in what is asked in them."""
    return NEVER_TRAINED if side == "templates" else TRAINED
