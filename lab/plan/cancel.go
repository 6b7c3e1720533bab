package plan

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Uncancelled returns what of err is not the end of ctx: of joined errors those
// that say something else, such as a clean-up that failed, with the words that
// stand before them. It is nil where there is nothing else, and err itself as
// long as ctx goes on.
//
// An error that wraps several in one text, as a wait does that was cut off and
// tells what it saw last, is one error.
func Uncancelled(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		return err
	}
	return without(err, func(err error) bool {
		return errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))
	})
}

// joined is the type of errors that stand side by side.
var joined = reflect.TypeOf(errors.Join(context.Canceled))

// without returns err without the parts that are.
func without(err error, is func(error) bool) error {
	if err == nil || !is(err) {
		return err
	}
	switch e := err.(type) { //nolint:errorlint // it takes the tree apart
	case interface{ Unwrap() []error }:
		if reflect.TypeOf(err) != joined {
			break
		}
		var rest []error
		for _, part := range e.Unwrap() {
			rest = append(rest, without(part, is))
		}
		return errors.Join(rest...)
	case interface{ Unwrap() error }:
		inner := e.Unwrap()
		left := without(inner, is)
		if !is(inner) || left == nil {
			break
		}
		if before, ok := strings.CutSuffix(err.Error(), inner.Error()); ok {
			left = fmt.Errorf("%s%w", before, left)
		}
		return left
	}
	return nil
}
