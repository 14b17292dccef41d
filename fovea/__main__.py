"""Fovea: how much faster does an acceleration method make a diffusion transformer, and what does the speed
cost?

    python run.py                                        the embedded default, on a CPU, in minutes
    python run.py method=ras model=lumina sweep=ratio    conf/ has the models, methods, sweeps and metrics
    python run.py experiment=ras_table1 scale=tiny       a paper's table beside what it prints
    python run.py plan=true                              what would run, what is done, how long it takes
    python run.py rescore=results/NAME eval=full         other metrics over stored images; no model needed

    python run.py list=models                            what there is: methods, metrics, studies, ...
    python run.py show=results/NAME                      its table again; with logger=wandb it is logged later
    python run.py compare=[results/A,results/B]          what changed from one to the other, and how surely
    python run.py merge=[results/A,results/B] name=NEW   several machines, or several parts of a grid, as one

Any key of conf/ can be set: method.ratio=0.3 n=48 seeds=[0,1] model.weights=random logger=wandb
results=FOLDER prompts=coco2014 eval.metrics=[psnr,fid] metric.fid.reference.path=FOLDER

The last line of stdout is one JSON object. Exit: 0 done, 2 refused, 3 a cell failed, 130 interrupted.
"""

import sys

from fovea.study.config.errors import Refused


def main(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        from fovea.study.commands.list import help_text

        print(__doc__, help_text(), sep="\n")
        return 0
    try:
        from fovea.study.commands.command import execute  # nothing heavy: a refusal is fast

        return execute(arguments)
    except Refused as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: what is finished is kept; continue with the same command", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
