"""One network as a file: wspace's own, and folders that PEFT reads."""
