# Damaged model folders: one clear line naming the file, the right exit code, nothing left behind.
. "$SOURCE/tests/cli/lib.sh"

bad() { # CODE PATTERN: what inspect says about the folder m, which is removed afterwards
  expect_fail "$1" "$2" "$GPTVQ" inspect m
  expect_fail "$1" "$2" "$GPTVQ" generate m -p x -n 1
  rm -rf m
}
weights=m/model.safetensors

# files that are not there
expect_fail 3 'nowhere' "$GPTVQ" inspect nowhere
mkdir m && bad 3 'config\.json'
copy_model m && rm $weights && bad 3 'model\.safetensors'
copy_model m && rm m/config.json && bad 3 'config\.json'
: > m && bad 3 'm'

# safetensors
copy_model m && head -c 5000000 "$model/model.safetensors" > $weights && bad 4 'model\.safetensors.*(truncated|beyond|end|size|bytes)'
copy_model m && : > $weights && bad 4 'model\.safetensors'
copy_model m && printf 'abc' > $weights && bad 4 'model\.safetensors'
copy_model m && printf 'extra' >> $weights && bad 4 'model\.safetensors'
copy_model m && poke $weights 0 '\377\377\377\377\377\377\377\177' && bad 4 'model\.safetensors.*header'
copy_model m && poke $weights 0 '\020\000\000\000\000\000\000\000' && bad 4 'model\.safetensors.*header'
copy_model m && poke $weights 8 '}' && bad 4 'model\.safetensors.*header'
# k_proj of block 0 where k_proj of block 1 is: overlap, and a hole where it was
copy_model m && edit $weights 's/\[2229248,2294784\]/[3803136,3868672]/' && bad 4 'model\.safetensors'
copy_model m && edit $weights 's/\[2229248,2294784\]/[2294784,2229248]/' && bad 4 'model\.safetensors'
copy_model m && edit $weights 's/\[2229248,2294784\]/[-229248,2294784]/' && bad 4 'model\.safetensors'
copy_model m && edit $weights 's/\[128,256\],"data_offsets":\[2229248/[128,255],"data_offsets":[2229248/' && bad 4 'k_proj'
copy_model m && edit $weights 's/\[128,256\],"data_offsets":\[2229248/[256,128],"data_offsets":[2229248/' && bad 4 'k_proj'
copy_model m && edit $weights 's/"BF16","shape":\[128,256\],"data_offsets":\[2229248/"I16" ,"shape":[128,256],"data_offsets":[2229248/' && bad 5 'k_proj'
copy_model m && edit $weights 's/"BF16","shape":\[128,256\],"data_offsets":\[2229248/"XY16","shape":[128,256],"data_offsets":[2229248/' && bad '[45]' 'k_proj'
copy_model m && edit $weights 's/layers\.0\.self_attn\.k_proj/layers.0.self_attn.K_proj/' && bad 4 'layers\.0\.self_attn\.k_proj'

# config.json
config=m/config.json
copy_model m && printf '{' > $config && bad 4 'config\.json'
copy_model m && printf '[1]' > $config && bad 4 'config\.json'
copy_model m && edit $config 's/LlamaForCausalLM/BertModel/' && bad 5 'BertModel'
copy_model m && edit $config 's/"hidden_size": 256/"hidden_size": 320/' && bad 4 '(hidden|shape|\[|320)'
copy_model m && edit $config 's/"hidden_size": 256/"hidden_size": -1/' && bad 4 'hidden_size'
copy_model m && edit $config 's/"hidden_size": 256/"hidden_size": "big"/' && bad 4 'hidden_size'
copy_model m && edit $config 's/"intermediate_size": 768/"intermediate_size": 512/' && bad 4 '(mlp|gate|up|down)'
copy_model m && edit $config 's/"num_hidden_layers": 4/"num_hidden_layers": 5/' && bad 4 'layers\.4'
copy_model m && edit $config 's/"num_key_value_heads": 4/"num_key_value_heads": 8/' && bad 4 '[kv]_proj'
copy_model m && edit $config 's/"num_key_value_heads": 4/"num_key_value_heads": 3/' && bad 4 '(head|config)'
copy_model m && edit $config 's/"num_attention_heads": 8/"num_attention_heads": 0/' && bad 4 'num_attention_heads'
copy_model m && edit $config 's/"vocab_size": 1024/"vocab_size": 1000/' && bad 4 '(embed|vocab|lm_head)'
copy_model m && edit $config '/"vocab_size"/d; s/"use_cache": true,/"use_cache": true/' && bad 4 'vocab_size'
copy_model m && edit $config 's/"rope_type": "default"/"rope_type": "spiral"/' && bad 5 'spiral'
copy_model m && edit $config 's/"rms_norm_eps": 1e-05/"rms_norm_eps": -1/' && bad 4 'rms_norm_eps'
