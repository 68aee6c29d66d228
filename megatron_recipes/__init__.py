"""How a model is trained: recipes, models, data and the engine around Megatron-Core."""
