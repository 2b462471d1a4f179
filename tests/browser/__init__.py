"""The desk in a real browser.  What is asked of it, and where that is proven:

==  ======================================================================  ============================================================================================================
 1  hostile content is text and does nothing                                test_desk: hostile_content; unit/web/test_pages: hostile_content
 2  every answer has the policy; no inline code; a framed page is blank     unit/web/test_guard: every_answer; test_pages: hostile_content; test_desk: a_page_elsewhere
 3  a Host that is not ours is refused, by every method                     test_operators: a_host_that_is_none; unit/web/test_guard
 4  a page elsewhere neither reads, writes nor frames, on another port too  test_desk: a_page_elsewhere; unit/web/test_guard
 5  looking changes nothing                                                 unit/web/test_pages: looking_changes_nothing; servers/test_desk
 6  read-only: no act, no route, no right to write                          servers/test_desk: the_desk_of_the_unit; unit/web/test_guard
 7  one is sent back, and its history says by whom, how and why             test_desk: find_tick; test_operators: a_newcomer_finds (and is processed); unit/web/test_acts
 8  a filter is an address, and the command line lists the same             test_operators: all_that_match; unit/web/test_pages: the_command_that_a_page_shows
 9  all 3,017 that match are exactly those, and none that came since        test_operators: all_that_match
10  a tick that is stale is gone, and the others are done                   test_operators: a_tick_that_is_stale
11  of two operators one wins, and the other is told who and when           test_operators: of_two_operators
12  rows, ticks, focus and pointer stay where they are while 50 arrive      test_desk: rows_do_not_move_under_pointer_focus_and_ticks
13  what was removed comes back byte for byte; after its time it is gone    test_desk: what_was_removed_comes_back; unit/web/test_acts; unit/cli/test_change (the trash)
14  edit and retry: difference, original kept, what is locked is refused    test_operators: a_message_is_changed; unit/web/test_edit
15  groups add up, lead to their entries, and are tried with a few          test_desk: cells_of_the_groups, a_group_is_tried; unit/web/test_pages: groups_add_up
16  all works without script                                                test_desk: find_tick (without script); test_operators: a_message_is_changed, a_few_of_a_group
17  all works by keyboard with the focus seen; keys can be switched off     test_desk: keys_alone
18  axe finds nothing serious, in light, dark and forced colours            test_desk: axe
19  320 px and 400 %: nothing is too wide or covered, targets are large     test_desk: no_page_scrolls, at_400_percent
20  a hidden tab asks nothing for a minute; eight load in 2 s; 304          test_desk: a_tab_that_nobody_sees; test_operators: eight_tabs_are_all_there_within_two_seconds; unit/web/test_pages: an_unchanged_page
21  a million waiting: pages come at once and take nothing from the queues  benchmarks (``bin/bench --only desk``); unit/web/test_pages: no_page_walks, a_list_of_queues_that_stand_still; unit/operating/test_census
22  a dead master is told, and what works without one works                 test_desk: a_master_that_is_killed; test_operators: without_a_master
23  pause, scale and restart are done within five seconds                   test_operators: pause_scale_and_restart_from_the_page
24  each twin is its page; pages of one same time lose, repeat nothing      test_twin: each_page_and_its_twin, what_forms_lead_to, what_the_command_line_says, the_pages_of_one_same_time; unit/web/test_pages: paging_by_name
25  odd and unreadable entries give a page with what is known               unit/web/test_pages: odd_bodies, torn_and_unreadable; servers/test_desk
26  an empty page says which kind of empty it is                            unit/web/test_pages: an_empty_page; servers/test_desk
27  the environment stands in every title; no act crosses installations     test_desk: two_installations; unit/web/test_pages: every_page_names; test_guard: a_form_without_a_token
28  totals never fall, and hostile names are no labels                      acceptance/test_metrics
==  ======================================================================  ============================================================================================================
"""
