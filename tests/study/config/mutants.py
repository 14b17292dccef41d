"""Command lines that are wrong, drawn from a seed: each says one or two things that cannot stand."""

import string
from collections.abc import Iterator
from random import Random

PLAIN = ("n", "batch", "seeds", "cost", "prompts", "results", "name", "plan")
NUMBERS = ("n", "batch", "model.steps", "model.height", "model.width", "method.ratio", "method.start")
GROUPS = ("model", "method", "sweep", "metric", "eval", "logger", "launcher", "scale", "experiment")
KEYS = (
    *NUMBERS,
    "launcher.workers",
    "logger.project",
    "model.guidance",
    "model.dtype",
    "method.selection",
    "sweep.curve",
    "eval.strict",
)
COMMANDS = ("merge", "compare", "show", "rescore")
HYDRA = (
    "run.dir",
    "sweep.dir",
    "job.name",
    "output_subdir",
    "verbose",
    "launcher._target_",
    "mode",
    "searchpath",
)
WORDS = (
    "abc",
    "[]",
    "{}",
    "[1,2]",
    "{a: 1}",
    "null",
    "''",
    "'[1]'",
    "[[1]]",
    "{a: {b: [1]}}",
    "nan",
    "1e999",
)
RUBBISH = (
    *("nowhere", "[]", "[a]", "[[a],[b]]", "{a: 1}", "1", "true", "[null,null]", "/dev/null", "/", "${x}"),
    *(
        "a,b",
        "'\\0'",
        "x" * 300,
        "[" + "y" * 300 + ",z]",
        "/".join("ab" * 3000),
        "~nobody/x",
        "../..",
        "[1,2,3]",
    ),
)
TARGETS = (
    "os.system",
    "builtins.eval",
    "fovea.methods.ras",
    "methods..RAS",
    "fovea",
    "",
    "1",
    "[a]",
    "..",
    "a b",
)
POINTS = (
    *(
        "{label: ''}",
        "{label: [1]}",
        "{label: {a: 1}}",
        "{label: true}",
        '{label: "a\nb"}',
        "{label: 1.5, n: 3}",
    ),
    *(
        "{batch: 2}",
        "{seeds: [1]}",
        "{results: x}",
        "{method: nope}",
        "{method.rato: 1}",
        "{method.ratio: []}",
    ),
    *(
        "{model.steps: 1000000000}",
        "{model.height: 3}",
        "{method.ratio: ${nope}}",
        "{hydra.run.dir: x}",
        "1",
        "[]",
    ),
    *(
        "{metric.psnr.window: 3}",
        "{method: [ras,ralu]}",
        "{method: 1}",
        "{model: {a: 1}}",
        "{a.b.c: 1}",
        "{'': 1}",
    ),
    *(
        "{method.ratio: 0.5}, {method.ratio: 0.5, label: x}, {cost: time}",
        "{label: a}, {label: a, method.start: 3}",
    ),
    *(
        "{method._target_: os.system}",
        "{model._target_: fovea.methods.RAS}",
        "{method: {_target_: os.system}}",
    ),
    *("{model.path: [1]}", "{model.device: tpu}", "{cache: fora}", "{1: 2}", "{true: 1}", "{null: 1}"),
)
BROKEN = (
    "${",
    "${nope}",
    "${nope.x}",
    "${oc.env:NO_SUCH_NAME}",
    "${n",
    "${.}",
    "${..}",
    "${eval:1+1}",
    "${${n}}",
)
TOO_MUCH = (
    *("n={}", "batch={}", "model.steps={}", "model.height={}", "model.guidance=[{}]", "method.start={}"),
    *(
        "method.ratio={}",
        "sweep.curve=[{}]",
        "seeds=[{}]",
        "sweep.grid.model.steps=[{}]",
        "eval.margin.psnr=-{}",
    ),
)


def mutants(seed: int) -> Iterator[tuple[str, ...]]:
    """Without end, the kinds in turn."""
    random = Random(seed)
    while True:
        for kind in KINDS:
            yield kind(random)


def misspelt(word: str, random: Random) -> str:
    """With a letter more, less, other or moved; never the word itself."""
    at, letter = random.randrange(len(word)), random.choice(string.ascii_lowercase)
    new = random.choice(
        [word[:at] + word[at + 1 :], word[:at] + letter + word[at:], word[:at] + letter + word[at + 1 :]]
    )
    return new if new != word and new.strip(".") == new and ".." not in new else f"{word}{letter}q"


def wrong_key(random: Random) -> tuple[str, ...]:
    *parents, leaf = random.choice(KEYS).split(".")
    return (f"{random.choice(['', '', '+', '++'])}{'.'.join([*parents, misspelt(leaf, random) + 'z'])}=1",)


def wrong_choice(random: Random) -> tuple[str, ...]:
    names = ("lumina_tiny", "ras", "ratio", "psnr", "quick", "wandb", "local", "tiny", "ras_table1")
    group, name = random.choice(list(zip(GROUPS, names, strict=True)))
    return (f"{group}={misspelt(name, random)}z",)


def wrong_type(random: Random) -> tuple[str, ...]:
    key = random.choice(NUMBERS)
    return (f"{key}={random.choice([w for w in WORDS if w != 'null'])}",)


def wrong_shape(random: Random) -> tuple[str, ...]:
    """A value of another shape where a node or a group stands."""
    key = random.choice(
        ["model", "method", "sweep", "eval", "logger", "launcher", "sweep.grid", "sweep.points"]
    )
    return (f"{key}={random.choice(['abc', '7', '1.5', 'true', '{a: 1}', '[[a]]', '[{a: {b: c}}]'])}",)


def out_of_range(random: Random) -> tuple[str, ...]:
    key = random.choice([*NUMBERS, "seeds"])
    value = random.choice(["-1", "0.0", "-0.001", "-1e9", "1e30", "inf", "-inf", "nan"])
    return (f"{key}=[-1,{value}]" if key == "seeds" else f"{key}={value if key != 'method.start' else '-1'}",)


def absurd(random: Random) -> tuple[str, ...]:
    size = random.choice(["9" * 5000, "9" * 400, "-" + "7" * 5000, "1" + "0" * random.randint(30, 4999)])
    return (random.choice(TOO_MUCH).format(size),)


def absurd_count(random: Random) -> tuple[str, ...]:
    key = random.choice(["model.steps", "method.start", "model.height", "model.max_sequence_length"])
    size = 10 ** random.randint(9, 15)
    values = (f"range(1,{size})", f"{size}", f"range(0,{size},1)", f"range(0.0,{size},0.001)")
    return (f"{key}={random.choice(values)}",)


def too_many(random: Random) -> tuple[str, ...]:
    """A grid that nobody can run."""
    keys = ("method.ratio", "method.start", "model.steps", "model.guidance", "model.height", "method.error")
    values = ",".join(str(i) for i in range(1, random.randint(100, 400)))
    return tuple(f"{key}={values}" for key in random.sample(keys, 4))


def too_long(random: Random) -> tuple[str, ...]:
    items = ",".join(map(str, range(random.randint(8000, 40000))))
    forms = (
        "seeds=[{}]",
        "method.ratio={}",
        "n=[{}]",
        "sweep.curve=[{}]",
        "merge=[{}]",
        "metric=[{}]",
        "x=[{}]",
    )
    return (random.choice(forms).format(items),)


def nested(random: Random) -> tuple[str, ...]:
    deep = random.choice([50, 500, 2000])
    opened, closed = random.choice([("[", "]"), ("{a: ", "}"), ("[[", "]]"), ("{a: [", "]}"), ("[", "")])
    value = opened * deep + "1" + closed * deep
    return (
        f"{random.choice(['seeds', 'method.ratio', 'sweep.points', 'sweep.grid', 'n', 'metric'])}={value}",
    )


def long_path(random: Random) -> tuple[str, ...]:
    path = random.choice(["x" * 300, "/".join(["y" * 200] * 30), "z" * 9000, "../" * 2000 + "a" * 260])
    key = random.choice(["results", "prompts", "name", "show", "rescore"])
    return (f"{key}={path}",)


def twice(random: Random) -> tuple[str, ...]:
    pairs = {
        **{
            "n": "48",
            "batch": "412",
            "seeds": ("[0]", "[1]"),
            "model.steps": ("6", "8"),
            "method": ("ras", "ralu"),
        },
        **{
            "model": ("lumina_tiny", "sd3_tiny"),
            "method.ratio": ("0.5", "0.3,0.2"),
            "cost": ("time", "flops"),
        },
        **{
            "plan": ("true", "false"),
            "metric": ("[psnr]", "[ssim]"),
            "sweep": ("none", "ratio"),
            "name": "ab",
        },
    }
    key = random.choice(list(pairs))
    first, second = random.sample([pairs[key][0], pairs[key][1]], 2)
    return f"{key}={first}", f"{random.choice(['', '+', '++'])}{key}={random.choice([first, second])}"


def taken_away(random: Random) -> tuple[str, ...]:
    key = random.choice([*KEYS, *PLAIN, *GROUPS])
    return (*((f"{key}=1",) if random.random() < 0.3 else ()), f"~{key}")


def of_hydra(random: Random) -> tuple[str, ...]:
    dots = random.choice(
        ["hydra.{}=x", "+hydra.{}=x", "++hydra.{}=x", "hydra.{}=a,b", "hydra/{}=x", "~hydra.{}"]
    )
    flags = (
        "--multirun",
        "-m",
        "--cfg=job",
        "--config-name=x",
        "--config-dir=/",
        "--info",
        "-cd",
        "--version",
    )
    return (random.choice([dots.format(random.choice(HYDRA)), random.choice(flags)]),)


def several(random: Random) -> tuple[str, ...]:
    """Of a key that every cell has the same of."""
    key = random.choice([*PLAIN, "eval.strict", "logger", "launcher", "scale", "sweep", "metric.psnr.window"])
    forms = (
        "{}=1,2",
        "{}=range(0,3)",
        "{}=choice(a,b)",
        "sweep.grid.{}=[1,2]",
        "+sweep.grid.{}=[1]",
        "{}=glob(*)",
    )
    return (random.choice(forms).format(key),)


def point(random: Random) -> tuple[str, ...]:
    return ("sweep=none", f"sweep.points=[{random.choice(POINTS)}]")


def grid(random: Random) -> tuple[str, ...]:
    key = random.choice(
        ["method.ratio", "model.steps", "method.rato", "model.dtype", "cache", "method", "model"]
    )
    value = random.choice(
        ["[]", "1", "{a: 1}", "[[1]]", "[{a: 1}]", "[nope]", "[-1]", "[null,nope]", "[0.5,x]"]
    )
    return (f"sweep.grid.{key}={value}",)


def interpolated(random: Random) -> tuple[str, ...]:
    key = random.choice(
        [*NUMBERS, "name", "results", "prompts", "seeds", "metric", "model", "method", "sweep.curve"]
    )
    return (f"{key}={random.choice(['{}', chr(39) + '{}' + chr(39)]).format(random.choice(BROKEN))}",)


def target(random: Random) -> tuple[str, ...]:
    node = random.choice(["model", "method", "logger", "launcher"])
    inner = random.choice(
        ["_target_={}", "_args_=[{}]", "_partial_=true", "_recursive_=false", "_convert_=none"]
    )
    return (f"{random.choice(['', '+', '++'])}{node}.{inner.format(random.choice(TARGETS))}",)


def command(random: Random) -> tuple[str, ...]:
    name, value = random.choice(COMMANDS), random.choice(RUBBISH)
    beside = random.choice(
        [(), (), ("name=x",), ("n=3",), ("method.ratio=1",), ("show=x", "merge=y"), ("plan=true",)]
    )
    return (f"{name}={value}", *(word for word in beside if word.partition("=")[0] != name))


def unreadable(random: Random) -> tuple[str, ...]:
    signs = "=[]{}(),:'\"\\$#@!~+-*&|<>;\0\x1b\u202e\n\t 🦊é\ud800"
    word = "".join(random.choice(signs) for _ in range(random.randint(1, 30)))
    return (f"{random.choice(['', 'n=', 'name=', 'seeds=', 'method.ratio='])}{word}",)


def other_digits(random: Random) -> tuple[str, ...]:
    """Numbers to other readers."""
    words = (
        "١٢",
        "１２",
        "²",
        "½",
        "0x10",
        "0b1",
        "1__0",
        "1 2",
        "1;2",
        "IV",
        "twelve",
        "1e",
        "+-1",
        "--1",
        "1,",
        "'1",
    )
    word = random.choice(words)
    return (f"{random.choice(NUMBERS)}={random.choice(['{}', chr(39) + '{}' + chr(39)]).format(word)}",)


def switched(random: Random) -> tuple[str, ...]:
    """A number where true or false stands, and the reverse."""
    numbers = (
        "seeds=[{}]",
        "sweep.curve=[{}]",
        "method.resets=[{}]",
        "eval.margin={{psnr: {}}}",
        "n={}",
        "model.guidance={}",
    )
    switches = ("eval.strict={}", "method.kv={}", "method.as_released={}", "++eval.strict={}")
    form, words = random.choice(
        [(numbers, ("true", "False", "TRUE")), (switches, ("1", "0", "2.0", "yes", "'true'", "null"))]
    )
    return (random.choice(form).format(random.choice(words)),)


def spelt_otherwise(random: Random) -> tuple[str, ...]:
    """A key with what is no part of it."""
    key = random.choice([*NUMBERS, "seeds", "name"])
    forms = (
        "{}@x",
        "{}@:x",
        "{}:x",
        "{}.",
        ".{}",
        "{}..x",
        "{}[0]",
        "{}.0",
        "{}.x",
        " {}",
        "{} ",
        "'{}'",
        "config.{}",
        "/{}",
        "{}\u200b",
        "-{}",
        "+++{}",
        "~~{}",
    )
    changed = random.choice(
        [*(form.format(key) for form in forms), key.upper(), key.replace("e", "\u0435") + "е"]
    )
    return (f"{changed}={random.choice(['1', '0.5', '', '[1]'])}",)


def no_value(random: Random) -> tuple[str, ...]:
    key = random.choice(
        [
            *NUMBERS,
            "seeds",
            "cost",
            "results",
            "prompts",
            "name",
            "metric",
            "cache",
            "launcher",
            "eval.strict",
        ]
    )
    values = (
        "range(3,1)",
        "range(0,0)",
        "choice()",
        "",
        "shuffle()",
        "interval(0,1)",
        "tag(a)",
        "'${n}${'",
        ",",
        ",1",
        "1,,2",
    )
    return (random.choice([f"{key}={random.choice(values)}", key, f"{key}==", f"+{key}", f"{key}:1"]),)


def several_within(random: Random) -> tuple[str, ...]:
    """A range or a choice within a value, which Hydra's grammar has and nothing takes."""
    forms = ("[{}]", "{{a: {}}}", "{},1", "1,{}", "[[{}]]")
    words = ("range(1,3)", "choice(1,2)", "sort(2,1)", "shuffle(1,2)", "glob(*)", "interval(0,1)")
    key = random.choice([*NUMBERS, "seeds", "model.negative", "sweep.curve", "metric", "sweep.points"])
    return (f"{key}={random.choice(forms).format(random.choice(words))}",)


KINDS = (
    *(
        wrong_key,
        wrong_choice,
        wrong_type,
        wrong_shape,
        out_of_range,
        absurd,
        absurd_count,
        too_many,
        too_long,
    ),
    *(
        nested,
        long_path,
        twice,
        taken_away,
        of_hydra,
        several,
        point,
        grid,
        interpolated,
        target,
        command,
        unreadable,
    ),
    *(other_digits, switched, spelt_otherwise, no_value, several_within),
)
