#!/usr/bin/env bash
# Everything that wants a GPU, in order of worth. Run it again and again (each part stops after 10 minutes at the latest
# and goes on where it was killed); finished parts are skipped. 40 GB are plenty.
#
#   scripts/gpu.sh            # all parts
#   scripts/gpu.sh lumina     # one of: data vae clip lumina sd3 flux timing papers
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
HARDWARE=${HARDWARE:-"one $(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)"}
mkdir -p data/done

part() { # NAME COMMAND...: at most 10 minutes, once
  local name=$1
  shift
  [ -e "data/done/$name" ] && return
  timeout --signal=INT 590 "$@" && touch "data/done/$name" || { echo "$name: not finished, run again"; exit 3; }
}

dit() { # FAMILY: longer and in larger batches than on a CPU; 64, 128 and 256 px
  part "$1" "$PYTHON" -m scripts.train_dit "$1" --steps 30000 --batch 8 --first 0.3
  part "$1.card" "$PYTHON" -m scripts.card "$1" --hardware "$HARDWARE"
}

for wanted in ${*:-data vae clip lumina sd3 flux timing papers}; do
  case $wanted in
    data) part data "$PYTHON" -m scripts.drawings ;;
    vae)
      part vae4 "$PYTHON" -m scripts.train_vae --channels 4 --steps 20000 --batch 64
      part vae16 "$PYTHON" -m scripts.train_vae --channels 16 --steps 20000 --batch 64 --start data/vae4
      ;;
    clip) part clip "$PYTHON" -m scripts.train_clip --steps 6000 --batch 512 ;;
    lumina | sd3 | flux) dit "$wanted" ;;
    timing) # full-size architectures with random weights: speed only, and every record says so
      for model in sd3 lumina flux; do
        part "timing.$model" "$PYTHON" run.py model=$model model.weights=random sweep=speed eval=none n=4 batch=1
      done
      ;;
    papers) # the speed columns of the papers' tables, beside what they print; random weights again
      for name in ras_table3 ralu_table1_sd3 ralu_table1_flux ras_table1 ralu_table2; do
        part "papers.$name" "$PYTHON" run.py experiment=$name model.weights=random prompts=emoji n=4
      done
      ;;
    *) echo "unknown part: $wanted" && exit 2 ;;
  esac
done
