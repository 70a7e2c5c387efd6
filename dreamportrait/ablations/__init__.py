"""The paper's ablations: what is left out, trained and measured alike, and whether the paper's orderings hold."""
