#!/usr/bin/env bash
# Everything that needs a GPU, most valuable parts first. Run it repeatedly: each part stops after at most 10 minutes and
# continues where it stopped; finished parts are skipped. 40 GB of GPU memory are enough.
#
#   scripts/gpu.sh                     # all parts
#   scripts/gpu.sh smoke timing        # some of: short tiny smoke timing compile papers train
#   MODELS=flux scripts/gpu.sh smoke   # only these models
#   scripts/gpu.sh pack gpu.tar.gz     # archive for another machine: the commit without results and embedded models
#   scripts/gpu.sh pack gpu.tar.gz tiny  # with the embedded models, for tiny
#   scripts/gpu.sh --dry-run smoke     # without a GPU: the same studies on the embedded models, a few small images
#
# short    sweep=short, timed, for when only minutes are available (BUDGET=180 seconds, divided among MODELS); not run
#          by default
# tiny     the studies of the embedded models, scored, 100 prompts each: sweep=matrix, selections (in ten steps too),
#          guidance and kept_text, and the papers' tables at scale=tiny; PROCESSES at once, by default as many as there are
#          cores: 49,600 images (before sweep=guidance) in five minutes of one H100 with 16 cores, and the matrices' reports;
#          not run by default, because it needs assets/*_tiny and assets/clip_emoji; BUDGET=240: after so many seconds, no new batch
# smoke    every method and cache once, at full size with random weights
# timing   each method's time beside its forecast, and the fitted losses of this GPU: results/gpu-timing-*/forecast.json
# compile  dense and sparse steps with compiled blocks: results/gpu-compile-*.json
# papers   the speed columns of the papers' tables, measured beside published values
# train    all embedded models at once, within the ten minutes of a part; without a network it needs data/drawings.npz
#
# Every study records the device, its driver and clocks, and the commit.
set -euo pipefail
HERE=$PWD
cd "$(dirname "$0")/.."

pack() { # FILE [tiny]: archive HEAD without results and, unless tiny, embedded models except autoencoders; add its hash as COMMIT
  local file tiny=(':(exclude)assets/flux_tiny' ':(exclude)assets/*_tiny/t*/*')
  [ "${2:-}" != tiny ] || tiny=()
  file=$(cd "$HERE" && realpath -m "$1")
  git archive --format=tar.gz --add-virtual-file="COMMIT:$(git rev-parse HEAD)" -o "$file" HEAD -- . \
    ':(exclude)results' ':(exclude)assets/*_tiny/*.png' "${tiny[@]}"
  [ -z "$(git status --porcelain --untracked-files=no)" ] || echo "uncommitted changes are left out"
  echo "$file: $(($(wc -c <"$file") / 1000000)) MB; there: tar -xzf ${file##*/}; pip install -e .; scripts/gpu.sh"
}
if [ "${1:-}" = pack ]; then
  [ $# -ge 2 ] || { echo "pack: needs the archive's name: scripts/gpu.sh pack gpu.tar.gz" && exit 2; }
  pack "${@:2}" && exit
fi

PYTHON=${PYTHON:-python}
DONE=${DONE:-data/done}
RESULTS=${RESULTS:-results}
MODELS=${MODELS:-sd3 lumina flux}
SIZE=(model.weights=random)
SUFFIX=
DRY=
if [ "${1:-}" = --dry-run ]; then
  shift
  DRY=yes DONE=$(mktemp -d) SUFFIX=_tiny ON=${ON:-h100} HARDWARE="no GPU"
  SIZE=(model.height=64 model.width=64)
  for model in $MODELS; do
    [ -d "assets/${model}_tiny/transformer" ] || { echo "--dry-run: needs assets/${model}_tiny, which a pack leaves out" && exit 2; }
  done
fi
if [ -z "$DRY" ]; then
  NAME=${NAME:-$(nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits | head -1)}
  HARDWARE=${HARDWARE:-"one ${NAME%,*}"}
  case $NAME in # the GPU's data sheet in conf/on
    *A100*) [ "${NAME##*, }" -gt 50000 ] && ON=${ON:-a100_80} || ON=${ON:-a100_40} ;;
    *H100*) ON=${ON:-h100} ;;
    *H200*) ON=${ON:-h200} ;;
    *B200*) ON=${ON:-b200} ;;
    *L40S*) ON=${ON:-l40s} ;;
    *4090*) ON=${ON:-rtx4090} ;;
    *5090*) ON=${ON:-rtx5090} ;;
  esac
fi
mkdir -p "$DONE"

FAILED=
part() { # NAME COMMAND...: run once, for at most 10 minutes; a failure does not stop the other parts
  local name=$1 code=0
  shift
  [ -e "$DONE/$name" ] && return
  echo "$name: $*"
  timeout --signal=INT --kill-after=10 590 "$@" || code=$? # background processes ignore INT
  case $code in
    0) touch "$DONE/$name" ;;
    124 | 130 | 137) echo "$name: not finished, run again" && exit 3 ;;
    *) echo "$name: failed with $code" && FAILED="$FAILED $name" ;;
  esac
}

study() { # NAME KEY=VALUE...: run one study, without scores
  local name=$1
  shift
  part "$name" "$PYTHON" run.py "name=gpu-$name" "results=$RESULTS" prompts=emoji eval=none 'metric=[]' batch=1 "$@"
}

methods() { # MODEL: all methods, comma-separated, except baseline and steps, which every study includes; multistep, which is
  # fitted to the embedded models alone, at more steps than these studies have; and for FLUX.1, which has no
  # classifier-free guidance, the method that leaves it out
  local without=(baseline steps multistep)
  [ "$1" != flux ] || without+=(guidance)
  basename -s .yaml -a conf/method/*.yaml | grep -vxF "$(printf '%s\n' "${without[@]}")" | paste -sd, -
}

tiny_studies() { # print NAME KEY=VALUE... of every study of the embedded models, the longest first
  local model of name
  for model in $MODELS; do echo "matrix-$model model=${model}_tiny sweep=matrix traces=0"; done
  for name in $(basename -s .yaml -a conf/experiment/*.yaml); do echo "$name experiment=$name scale=tiny"; done
  for model in $MODELS; do
    of="model=${model}_tiny traces=0"
    echo "selections-$model $of sweep=selections metric=[psnr]"
    echo "selections10-$model $of sweep=selections metric=[psnr] model.steps=10"
    echo "guidance-$model $of sweep=guidance"
    [ "$model" = lumina ] || echo "kept-text-$model $of sweep=kept_text" # its blocks run no text
  done
}

tiny() { # run them in parallel
  local name settings jobs=() job size=(n=100 batch=50 ${BUDGET:+"time_limit=$BUDGET"})
  [ -z "$DRY" ] || size=(n=2 batch=2)
  while read -r name settings; do
    while [ "$(jobs -rp | wc -l)" -ge "${PROCESSES:-$(nproc)}" ]; do wait -n || true; done
    # shellcheck disable=SC2086 # settings are words
    (part "$name" "$PYTHON" run.py "name=gpu-$name" "results=$RESULTS" cost=flops $settings "${size[@]}" && [ -z "$FAILED" ]) &
    jobs+=($!)
  done < <(tiny_studies)
  for job in "${jobs[@]}"; do wait "$job" || FAILED="$FAILED tiny"; done
}

caches() { # MODEL: all caches, comma-separated, except those whose constants its file lacks
  for cache in $(basename -s .yaml -a conf/method/cache/*.yaml); do
    case $cache in magcache | teacache) grep -q "^$cache:" conf/model/$1.yaml || continue ;; esac
    echo $cache
  done | paste -sd, -
}

for wanted in ${*:-smoke timing compile papers train}; do
  case $wanted in
    smoke)
      for model in $MODELS; do
        of=(model=$model$SUFFIX "${SIZE[@]}" n=1 sweep=none "sweep.curve=[0.5]")
        study "smoke-$model" "${of[@]}" method="$(methods $model$SUFFIX)"
        study "smoke-$model-caches" "${of[@]}" method=caching cache="$(caches $model$SUFFIX)"
      done
      ;;
    short)
      for model in $MODELS; do
        study "short-$model" model=$model$SUFFIX "${SIZE[@]}" n=2 sweep=short traces=0 \
          "time_limit=$((${BUDGET:-180} / $(wc -w <<<"$MODELS")))"
      done
      ;;
    tiny)
      OMP_NUM_THREADS=1 tiny
      for name in matrix selections selections10; do
        part "$name" "$PYTHON" -m "scripts.${name%10}" "$RESULTS" "gpu-$name"
        [ -z "$FAILED" ] || rm -f "$DONE/$name" # the table is incomplete
      done
      ;;
    timing)
      for model in $MODELS; do
        study "timing-$model" model=$model$SUFFIX "${SIZE[@]}" n=4 sweep=speed
        [ -z "${ON:-}" ] || part "timing-$model-fit" "$PYTHON" -m scripts.fit_forecast "$RESULTS/gpu-timing-$model" --on "$ON"
      done
      ;;
    compile)
      for model in $MODELS; do
        part "compile-$model" "$PYTHON" -m scripts.compiled model=$model$SUFFIX "${SIZE[@]}" --out "$RESULTS/gpu-compile-$model.json" \
          ${DRY:+--steps 2 --backend eager}
      done
      ;;
    papers)
      for name in ras_table3 ralu_table1_sd3 ralu_table1_flux ras_table1 ralu_table2; do
        if [ -n "$DRY" ]; then study "papers-$name" experiment=$name scale=tiny n=1; else study "papers-$name" experiment=$name model.weights=random n=4; fi
      done
      ;;
    train) STATE=${STATE:-data} PYTHON=$PYTHON part train bash scripts/train.sh gpu 570 ;;
    *) echo "unknown part: $wanted" && exit 2 ;;
  esac
done
[ -z "$FAILED" ] || { echo "failed:$FAILED" && exit 1; }
