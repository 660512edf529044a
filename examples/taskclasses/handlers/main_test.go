package main

import (
	"bytes"
	"testing"
)

func TestHandlers(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	const want = `the right password
  before start:  login_task, run 1
  success:       ann is in
  after return:  SUCCESS, result ann is in, traceback false
  mail:          ann@example.org: Welcome, ann
a wrong password, retry sent by position
  before start:  login_task, run 1
  failure:       eve: Error('wrong password'); retry=0, from 2 positional and {}
  after return:  FAILURE, result <nil>, traceback true
  before start:  login_task, run 1
  failure:       eve: Error('wrong password'); retry=1, from 1 positional and {"retry": 1}
  after return:  FAILURE, result <nil>, traceback true
  before start:  login_task, run 1
  failure:       eve: Error('wrong password'); retry=2, from 1 positional and {"retry": 2}
                 gave up
  after return:  FAILURE, result <nil>, traceback true
a busy directory
  before start:  login_task, run 1
  retry:         Error('the directory is busy')
  before start:  login_task, run 2
  success:       bob is in
  after return:  SUCCESS, result bob is in, traceback false
  mail:          bob@example.org: Welcome, bob
handlers that fail
  before start:  careless, run 1
  reported:      OnSuccess: no mail today
  reported:      AfterReturn: panic: no paper in the printer
  in the end:    SUCCESS, 0 messages not acknowledged
`
	if got := out.String(); got != want {
		t.Errorf("printed\n%s\nwant\n%s", got, want)
	}
}
