"""Python twins of Gadgetron's C++ gadgets."""
