"""Files of llama.cpp (GGUF), and the Modelfile with which Ollama imports them."""
