"""What Optuna decides, in studies in memory that are told everything anew from our rows."""
