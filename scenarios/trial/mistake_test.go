package trial

import (
	"context"
	"errors"
	"testing"

	"github.com/fedlab-dev/fedlab/lab/check"
	"github.com/fedlab-dev/fedlab/lab/fault"
)

// TestMistakeIsAFault: it is felt once it is made, and the end of the trial corrects it.
func TestMistakeIsAFault(t *testing.T) {
	for name, fails := range map[string]error{"made": nil, "may have been made": errors.New("no answer")} {
		wrong := false
		is := func(want bool) check.Check {
			return check.Check{Name: "it is so", Probe: func(context.Context) error {
				if wrong != want {
					return errors.New("it is not")
				}
				return nil
			}}
		}
		var mistake fault.Fault = Mistake{
			What: "written/here", Made: is(true), Corrected: is(false),
			Make: func(context.Context) error { wrong = true; return fails },
			Undo: func(context.Context) error { wrong = false; return nil },
		}
		r := run(t, func(ctx context.Context, trial *Trial) error {
			_, err := trial.Break(ctx, mistake)
			return err
		})
		if wrong || len(r.Windows) != 1 || r.Windows[0].Name != "written/here" || r.Windows[0].Healed.IsZero() || r.Windows[0].Felt.IsZero() == (fails == nil) {
			t.Errorf("%s: it is wrong %t still, windows %+v", name, wrong, r.Windows)
		}
	}
}
