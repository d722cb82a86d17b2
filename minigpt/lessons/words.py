"""The words that problems are made of: short, common, and enough of them that guessing is hopeless."""

from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LETTERS: Final = tuple("abcdefghijklmnopqrstuvwxyz")
DIGITS: Final = tuple("0123456789")
SYLLABLES: Final = tuple(c + v for c in "bdgklmnrst" for v in "aeiou")

NAMES: Final = _words("""
    Adam Alan Alice Amy Andy Anna Ben Beth Bill Bob Carl Dan Dora Ed Ella Emma Eric Eva Fred Grace Greg Hans Ian Ida
    Jack Jane Jim Joan Joe Kate Ken Leo Lily Lisa Lucy Mark Mary Max Mike Nick Nina Rose Ruth Sam Sue Tim Tom Will
""")
THINGS: Final = _words("""
    apple bag ball bell belt bike boat book box brush bucket button camera cap card chain clock coat coin comb cup
    desk dish doll door fan flag fork frame glass hat jar key kite lamp leaf letter lock map mask mug nail needle
    net oven paint pan pen pipe plate pot ring rope sack saw seed shell sock stamp stick stone string table tape
    tent tool toy tray vase watch wheel wire
""")
PLACES: Final = _words("""
    attic bakery bank barn bath cabin cafe castle cave cellar church cinema city corner field forest garage garden
    gate hall hotel house hut library museum office palace park port room school shed shop square stable station
    studio tower yard zoo
""")
DRINKS: Final = _words("""
    beer broth chai cider cocoa coffee cola juice latte lemonade milk mocha punch shake soda soup tea tonic water
    wine
""")
EXTRAS: Final = _words("""
    bread butter cake cheese cherry cinnamon cookies cream ginger honey ice lemon lime mint nuts salt spice sugar
    syrup toast
""")
SIZES: Final = ("small", "medium", "large", "huge")
