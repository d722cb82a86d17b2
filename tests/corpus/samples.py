"""Text worth reading, of the kinds and in the scripts that rules of quality are most likely to wrong."""

GOOD = {
    "english": "It was a bright cold day in April, and the clocks were striking thirteen. Nobody looked up.\n\n"
    "“Why should they?” she said. The stairs smelt of boiled cabbage, and of rain; at the turn of each landing an "
    "old bicycle leaned against the wall, as if it had been waiting for somebody who had moved away long ago.\n",
    "german": "Der Zug hielt auf freier Strecke. Niemand stieg aus, niemand stieg ein, und doch wurde die Tür "
    "geöffnet, "
    "als hätte jemand Donaudampfschifffahrtsgesellschaftskapitän gesagt. Schließlich fuhren wir weiter.\n",
    "french": "À Noël, l'été paraît loin ; « où êtes-vous allés ? » demanda-t-elle. Çà et là, des pâquerettes gelées. "
    "Nous n'avons rien répondu, car la réponse était déjà sur la table, entre le café et les œufs à la coque.\n",
    "portuguese": "NÃO É VERDADE que a ação começou às três. AS MÃES e os irmãos esperavam no portão, à sombra das "
    "romãzeiras, e ninguém sabia dizer por que razão o avô não vinha. Então ouvimos o cão.\n",
    "russian": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. "
    "Всё смешалось в доме. Жена узнала, что муж был в связи с бывшею гувернанткой, и объявила мужу об этом.\n",
    "greek": "Η θάλασσα ήταν ήσυχη εκείνο το πρωί και τα καΐκια έμοιαζαν να κρέμονται στον αέρα. Κανείς δεν μιλούσε, "
    "μόνο ο παππούς σφύριζε έναν παλιό σκοπό.\n",
    "chinese": "天下大势，分久必合，合久必分。周末七国分争，并入于秦；及秦灭之后，楚、汉分争，又并入于汉。"
    "汉朝自高祖斩白蛇而起义，一统天下，后来光武中兴，传至献帝，遂分为三国。\n",
    "japanese": "国境の長いトンネルを抜けると雪国であった。夜の底が白くなった。信号所に汽車が止まった。"
    "向側の座席から娘が立って来て、島村の前のガラス窓を落した。\n",
    "korean": "나는 그날 아침 일찍 일어나 창문을 열었다. 눈이 내리고 있었고, 골목에는 아무도 없었다. 어머니는 "
    "부엌에서 국을 끓이고 계셨다.\n",
    "arabic": "كان المساء هادئًا، والريح تعبر النافذة كأنها تبحث عن شيء ضاع منذ زمن. قال الشيخ: لا تسأل البحر عن "
    "أسراره، فإنه لا يجيب إلا من يعرف الصمت.\n",
    "persian": "می‌خواهم کتاب‌هایم را به خانه‌ی تو بیاورم، اما باران نمی‌گذارد. کوچه پر از آب است و چراغ‌ها "
    "خاموش‌اند.\n",
    "hebrew": "בבוקר ההוא קמתי מוקדם וירדתי אל הים. איש לא היה שם, מלבד כלב אחד שרץ לאורך המים ונבח אל הגלים.\n",
    "hindi": "एक समय की बात है, एक गाँव में एक बूढ़ा किसान रहता था। उसके पास दो बैल थे और थोड़ी-सी ज़मीन। "
    "हर सुबह वह सूरज निकलने से पहले खेत में पहुँच जाता था।\n",
    "thai": "เช้าวันนั้นฝนตกหนัก ไม่มีใครออกไปตลาด แม่จึงทำข้าวต้มให้พวกเรากิน แล้วเล่าเรื่องเก่า ๆ "
    "ให้ฟังจนถึงเที่ยง\n",
    "python": 'def mean(values: list[float]) -> float:\n    """The arithmetic mean.\n\n    >>> mean([1.0, 2.0])\n '
    '   1.5\n'
    '    """\n    if not values:\n        raise ValueError("mean of nothing")\n    total = 0.0\n    for value in '
    'values:\n'
    "        total += value\n    return total / len(values)\n",
    "c": "#include <stdio.h>\n\nint main(int argc, char **argv)\n{\n    for (int i = 1; i < argc; i++) {\n        "
    "if (argv[i][0]"
    " == '-') {\n            continue;\n        }\n        printf(\"%s\\n\", argv[i]);\n    }\n    return 0;\n}\n",
    "markdown": "# Install\n\n1. Clone the repository\n2. Run `pip install -e .`\n3. Run the tests\n\n## Flags\n\n"
    "- `--data`: what to read\n- `--clean`: on or off\n\n```python\nimport minigpt\nprint(minigpt.ROOMS)\n```\n\n"
    "See [the notes](docs/notes.md) for **everything** else.\n",
    "poem": "Because I could not stop for Death –\nHe kindly stopped for me –\nThe Carriage held but just Ourselves –\n"
    "And Immortality.\n\nWe slowly drove – He knew no haste\nAnd I had put away\nMy labor and my leisure too,\n"
    "For His Civility –\n\nWe passed the School, where Children strove\nAt Recess – in the Ring –\n"
    "We passed the Fields of Gazing Grain –\nWe passed the Setting Sun –\n",
    "song": "Oh, the summer time has come\nAnd the trees are sweetly bloomin'\nAnd the wild mountain thyme\n"
    "Grows around the bloomin' heather\nWill ye go, lassie, go?\n\nAnd we'll all go together\nTo pull wild "
    "mountain thyme\n"
    "All around the bloomin' heather\nWill ye go, lassie, go?\n\nI will build my love a bower\nBy yon clear "
    "crystal fountain\n"
    "And on it I will pile\nAll the flowers o' the mountain\nWill ye go, lassie, go?\n",
    "table": "| city      | river   | people    | founded |\n|-----------|---------|-----------|---------|\n"
    "| Berlin    | Spree   | 3,769,000 | 1237    |\n| Hamburg   | Elbe    | 1,845,000 | 808     |\n"
    "| Munich    | Isar    | 1,472,000 | 1158    |\n| Cologne   | Rhine   | 1,086,000 | 50      |\n",
    "list": "Shopping for Sunday:\n\n- two pounds of flour, the dark one\n- eggs\n- a lemon\n- butter, if it is fresh\n"
    "- candles for the cake (eleven!)\n- string\n\nDo not forget to ask about the keys.\n",
    "dialogue": "– Who is there?\n– It is me.\n– Who is me?\n– The man from the bank.\n– Go away.\n– I have your "
    "money.\n"
    "– Then come in!\n– The door is locked.\n– Of course it is.\n– So open it.\n– I cannot find the key.\n",
    "exchange": "– Stop!\n– Why?\n– Listen.\n– To what?\n– There!\n– The wind?\n– No, no.\n– A dog?\n– Ssh.\n"
    "– I am cold.\n– So am I.\n– Come.\n",
    "chorus": "Row on, row on, my bonny boys,\nThe morning tide is high.\nThe gulls are up, the nets are down,\n"
    "And home is in your eye.\n\nMy father was a fisherman,\nHis father was before,\nAnd all they ever left to me\n"
    "Was one half-broken oar.\n\nRow on, row on, my bonny boys,\nThe morning tide is high.\n"
    "The gulls are up, the nets are down,\nAnd home is in your eye.\n",
    "haiku": "An old silent pond.\nA frog jumps into the pond –\nSplash! Silence again.\n",
    "emoji": "Happy birthday 🎂 to the whole family 👨‍👩‍👧‍👦 from all of us here in sunny Lisbon ❤️‍🔥 see you on "
    "Sunday!\n",
}
