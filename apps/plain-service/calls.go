package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// callBound is how long a call may take.
const callBound = 2 * time.Second

// answerLimit is the most that is read of an answer, in bytes.
const answerLimit = 1 << 20

// target is a call that is made when somebody asks how the calls go.
type target struct {
	// Name is unique among the targets.
	Name string `json:"name"`
	// URL is http://host:port/path, at a program next to this one.
	URL string `json:"url"`
	// Server is whom that program was told to let answer, and Profile how trust domains
	// know of each other: this program passes both on, and cannot check them.
	Server  string `json:"server"`
	Profile string `json:"profile,omitempty"`
}

// targets is a flag that lists targets as JSON.
type targets []target

func (t targets) String() string {
	if len(t) == 0 {
		return "[]"
	}
	text, err := json.Marshal([]target(t))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Set reads a JSON array of targets. It refuses fields that do not exist.
func (t *targets) Set(text string) error {
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	var all []target
	if err := decoder.Decode(&all); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("want one JSON array")
	}
	var errs []error
	seen := map[string]bool{}
	for i, one := range all {
		where, err := url.Parse(one.URL)
		switch {
		case one.Name == "":
			err = errors.New("name is empty")
		case err != nil:
		case where.Scheme != "http" || where.Port() == "":
			err = fmt.Errorf("url is %q: want http://host:port/path", one.URL)
		case seen[one.Name]:
			err = errors.New("the name is taken")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("target %d (%q): %w", i+1, one.Name, err))
		}
		seen[one.Name] = true
	}
	*t = all
	return errors.Join(errs...)
}

// report says how the calls of this program go, in the form in which the frontend reads
// what services report.
type report struct {
	Calls        []view    `json:"calls"`
	Now          time.Time `json:"now"`
	NextInMillis int64     `json:"nextInMillis"`
}

// view is how a call went.
type view struct {
	target
	State   string   `json:"state"`
	Millis  float64  `json:"millis,omitempty"`
	Problem *problem `json:"problem,omitempty"`
}

// problem is why a call failed. The program next to this one has closed the connection, and
// why, its log tells.
type problem struct {
	What   string `json:"what"`
	Detail string `json:"detail"`
	Look   string `json:"look"`
}

// report makes all calls, side by side.
func (t targets) report(ctx context.Context, now func() time.Time) report {
	r := report{Calls: make([]view, len(t)), NextInMillis: time.Second.Milliseconds()}
	var all sync.WaitGroup
	for i, one := range t {
		all.Go(func() { r.Calls[i] = one.call(ctx, now) })
	}
	all.Wait()
	r.Now = now()
	return r
}

func (t target) call(ctx context.Context, now func() time.Time) view {
	v := view{target: t, State: "answered"}
	begun := now()
	if err := t.get(ctx); err != nil {
		v.State = "failed"
		v.Problem = &problem{
			What: fmt.Sprintf("The call %q has no answer.", t.Name), Detail: err.Error(),
			Look: "The log of the program next to the caller that takes its calls to the server.",
		}
		return v
	}
	v.Millis = float64(now().Sub(begun).Microseconds()) / 1000
	return v
}

// get makes one call on a connection of its own: what was decided for an earlier one says
// nothing of this one.
func (t target) get(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, callBound)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(response.Body, 200))
		return errors.Join(fmt.Errorf("the answer is %s: %s", response.Status, bytes.TrimSpace(text)), err)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, answerLimit))
	return err
}
