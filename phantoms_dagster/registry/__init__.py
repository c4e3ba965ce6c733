"""The registry of platforms and providers, built in or from other packages. It imports no other package of Phantoms."""
