"""What a command line may ask for, one file a command."""
